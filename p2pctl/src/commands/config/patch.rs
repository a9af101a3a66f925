//! A change of a text as `diff -u` would show it: one hunk, because an edit is one place.

/// Lines around a change.
const CONTEXT: usize = 3;

/// The change from `before` to `after` of the file `name`; nothing if there is none.
pub(super) fn unified(name: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let first = head.saturating_sub(CONTEXT);
    let shown_tail = tail.min(CONTEXT);
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);

    let mut text = format!("--- {name}\n+++ {name}\n");
    let range = |end: usize| {
        let count = end + shown_tail - first;
        // As diff counts: an empty range names the line before it.
        format!("{},{count}", if count == 0 { first } else { first + 1 })
    };
    text.push_str(&format!("@@ -{} +{} @@\n", range(old_end), range(new_end)));
    let mut lines = |mark: char, lines: &[&str]| {
        for line in lines {
            text.push(mark);
            text.push_str(line);
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    lines(' ', &old[first..head]);
    lines('-', &old[head..old_end]);
    lines('+', &new[head..new_end]);
    lines(' ', &old[old_end..old_end + shown_tail]);
    text
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        assert_eq!(
            unified("f", before, &before.replace("5\n", "five\n")),
            "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(unified("f", before, before), "");
        assert_eq!(unified("f", "", "a\n"), "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("f", "a\n", ""), "--- f\n+++ f\n@@ -1,1 +0,0 @@\n-a\n");
    }

    #[test]
    fn a_missing_end_of_line_is_named() {
        assert_eq!(
            unified("f", "a", "a\nb"),
            "--- f\n+++ f\n@@ -1,1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n\\ No newline at end of file\n"
        );
    }
}
