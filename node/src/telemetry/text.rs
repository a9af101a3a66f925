//! The text forms of metrics.

/// What a scraper asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of an answer in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Rewrites OpenMetrics into the older text format: there, a counter's or info's metadata carries the full
/// name of its sample, info is a gauge, and `# UNIT` and `# EOF` do not exist.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut pending_help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if line.starts_with("# UNIT ") || line.starts_with("# EOF") {
            continue;
        }
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            pending_help = Some((name, help));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = pending_help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_info_carry_their_full_names_in_the_old_format() {
        let text = "# HELP p2p_x X.\n# TYPE p2p_x counter\n# UNIT p2p_x bytes\np2p_x_total 1\n\
                    # HELP p2p_build B.\n# TYPE p2p_build info\np2p_build_info{version=\"1\"} 1\n# EOF\n";
        assert_eq!(
            to_prometheus(text),
            "# HELP p2p_x_total X.\n# TYPE p2p_x_total counter\np2p_x_total 1\n\
             # HELP p2p_build_info B.\n# TYPE p2p_build_info gauge\np2p_build_info{version=\"1\"} 1\n"
        );
    }
}
