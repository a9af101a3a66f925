//! Re-indenting JSON text without touching its values: field order and the digits of numbers stay as the
//! method answered them.

use serde::de::IgnoredAny;

const STEP: &str = "  ";

/// `text` with one field or element per line, two spaces deeper at each level. Text that is not JSON
/// comes back as it is.
pub(crate) fn pretty(text: &str) -> String {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut chars = text.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(STEP, depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_string = true;
                out.push(c);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn order_numbers_and_strings_survive() {
        let text = r#"{"z":18446744073709551616.50,"a":[1,{"b":"{\"x\": [1,2]}\\"}],"e":{},"f":[ ]}"#;
        let expected = r#"{
  "z": 18446744073709551616.50,
  "a": [
    1,
    {
      "b": "{\"x\": [1,2]}\\"
    }
  ],
  "e": {},
  "f": []
}"#;
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty(expected), expected);
    }

    #[test]
    fn what_is_not_json_is_left_alone() {
        assert_eq!(pretty("not json {"), "not json {");
    }
}
