//! Rust sources as the rules see them: code apart from its comments and texts.

use std::{fs, path::Path};

/// One `.rs` file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the workspace's folder, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the contents of string literals blanked, line for line.
    pub(crate) code: String,
    /// String literals, with the number of the line on which they begin.
    pub(crate) literals: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, literals) = split(text);
        Self { path: path.to_owned(), text: text.to_owned(), code, literals }
    }

    pub(crate) fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// Whether the whole file is tests.
    pub(crate) fn is_test(&self) -> bool {
        self.is_under(&["tests/"])
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }

    /// Number of the first line of its tests, or one past its end.
    pub(crate) fn tests_begin(&self) -> usize {
        if self.is_test() {
            return 1;
        }
        let before = |(index, line): (usize, &str)| line.trim_start().starts_with("#[cfg(test)]").then_some(index + 1);
        // A test module that has a file of its own ends nothing here.
        let lines: Vec<_> = self.code.lines().collect();
        let own_file = |number: usize| lines.get(number).is_some_and(|next| next.trim_end().ends_with(';'));
        lines
            .iter()
            .enumerate()
            .filter_map(|(index, line)| before((index, line)))
            .find(|number| !own_file(*number))
            .unwrap_or(lines.len() + 1)
    }

    /// Numbered lines of the code that runs outside tests.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.tests_begin();
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(move |(number, _)| *number < end)
    }

    /// Numbered lines of the code of tests.
    pub(crate) fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.tests_begin();
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(move |(number, _)| *number >= end)
    }

    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {}", self.path, what.trim())
    }
}

/// Every `.rs` file below the folder, hidden folders and build output left out, in order of their paths.
pub(crate) fn below(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                sources.push(Source::new(&relative, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

/// Code with everything else blanked, and the string literals.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut literals = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let (end, literal) = token(&chars, at);
        if let Some((from, to)) = literal {
            literals.push((line, chars[from..to].iter().collect()));
        }
        let blank = end - at > 1 || literal.is_some();
        for &c in &chars[at..end] {
            line += usize::from(c == '\n');
            code.push(if blank && c != '\n' { ' ' } else { c });
        }
        at = end;
    }
    (code, literals)
}

/// Where the comment, literal or single character that begins at `at` ends, and the inside of a string literal.
fn token(chars: &[char], at: usize) -> (usize, Option<(usize, usize)>) {
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let find = |from: usize, text: &str| (from..chars.len()).find(|&i| starts(i, text)).unwrap_or(chars.len());
    let inside_a_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if starts(at, "//") => (find(at, "\n"), None),
        '/' if starts(at, "/*") => ((find(at, "*/") + 2).min(chars.len()), None),
        'r' if !inside_a_word || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return (at + 1, None);
            }
            let from = at + 2 + hashes;
            let to = find(from, &format!("\"{}", "#".repeat(hashes)));
            ((to + 1 + hashes).min(chars.len()), Some((from, to)))
        }
        '"' => {
            let mut to = at + 1;
            while to < chars.len() && chars[to] != '"' {
                to += if chars[to] == '\\' { 2 } else { 1 };
            }
            let to = to.min(chars.len());
            ((to + 1).min(chars.len()), Some((at + 1, to)))
        }
        // A character; what has no closing quote near it is a lifetime.
        '\'' if chars.get(at + 1) == Some(&'\\') => ((find(at + 3, "'") + 1).min(chars.len()), None),
        '\'' if chars.get(at + 2) == Some(&'\'') => (at + 3, None),
        _ => (at + 1, None),
    }
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = "let a = \"x // y\"; // \"no\"\nlet b = r#\"z \" z\"#; /* c\n */ d::<'a>('\"', '\\'');\nlet e = 'r';";
    let source = Source::new("a.rs", text);
    assert_eq!(source.literals, [(1, "x // y".to_owned()), (2, "z \" z".to_owned())]);
    assert_eq!(source.code.lines().count(), text.lines().count());
    for (gone, kept) in [("x", "let a"), ("no", "let b"), ("z", "d::<'a>("), ("\"", "let e")] {
        assert!(!source.code.contains(gone) && source.code.contains(kept), "{gone} {kept} in {}", source.code);
    }
}

#[test]
fn tests_begin_with_their_inline_module() {
    let source =
        Source::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod elsewhere;\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n");
    assert_eq!(source.tests_begin(), 5);
    assert_eq!(Source::new("a.rs", "fn a() {}\n").tests_begin(), 2);
    assert_eq!(Source::new("tests/a.rs", "fn a() {}\n").tests_begin(), 1);
}
