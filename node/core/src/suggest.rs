//! "Did you mean": the nearest known name to one that nobody knows.

/// The candidate nearest to `name` by Damerau-Levenshtein distance, if any is near enough to be what was
/// meant: within a third of the name's length, at least 2. Ties go to the first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        let keys = ["node_id", "port", "zone"];
        assert_eq!(nearest("node_ip", keys), Some("node_id"));
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("completely_different", keys), None);
    }
}
