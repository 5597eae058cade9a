//! Just enough of Rust for the tidy test: which lines are code, and which paths they name.
//!
//! Owns the blanking of comments, literals and test items, and the spreading of `use` trees. It
//! must not know the rules.

/// One file: as it is, and as code with comments, literals and test modules blanked out.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    /// The lines as they are.
    pub(crate) raw: Vec<String>,
    /// The lines with all blanked that is not code of the program.
    code: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let mut code = blank_comments_and_literals(text);
        if path.starts_with("src/") {
            code = blank_test_items(&code);
        }
        Source {
            path: path.to_owned(),
            raw: text.lines().map(str::to_owned).collect(),
            code: code.lines().map(str::to_owned).collect(),
        }
    }

    /// The path, without `.rs`, of each module that this file declares for tests only.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let directory = match self.path.rsplit_once('/') {
            Some((directory, "mod.rs" | "lib.rs" | "main.rs")) => directory,
            _ => self.path.strip_suffix(".rs").unwrap_or(&self.path),
        };
        let pairs = self.raw.iter().zip(self.raw.iter().skip(1));
        pairs
            .filter(|(attribute, _)| attribute.trim() == "#[cfg(test)]")
            .filter_map(|(_, item)| words(item).skip_while(|&word| word != "mod").nth(1))
            .map(|name| format!("{directory}/{name}"))
            .collect()
    }

    /// Forgets the code: it is a test's.
    pub(crate) fn set_test(&mut self) {
        self.code.clear();
    }

    pub(crate) fn matches(&self, files: &[&str], except: &[&str]) -> bool {
        files.iter().any(|prefix| self.path.starts_with(prefix))
            && !except.iter().any(|prefix| self.path.starts_with(prefix))
    }

    pub(crate) fn raw_lines_where(&self, test: impl Fn(&str) -> bool) -> Vec<usize> {
        numbers(&self.raw, test)
    }

    pub(crate) fn code_lines_where(&self, test: impl Fn(&str) -> bool) -> Vec<usize> {
        numbers(&self.code, test)
    }

    /// The lines of code, counted from one.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.iter().enumerate();
        numbered.map(|(index, line)| (index + 1, line.as_str()))
    }

    pub(crate) fn lines_with_word(&self, wanted: &str) -> Vec<usize> {
        self.code_lines_where(|line| words(line).any(|word| word == wanted))
    }

    /// Whether the line, or the comment and the attributes right above it, holds one of the marks.
    pub(crate) fn is_explained(&self, line: usize, marks: &[&str]) -> bool {
        let holds = |text: &String| marks.iter().any(|mark| text.contains(mark));
        let above = self.raw.iter().take(line - 1).rev();
        self.raw.get(line - 1).is_some_and(holds)
            || above
                .take_while(|text| {
                    let text = text.trim_start();
                    text.starts_with("//") || text.starts_with("#[")
                })
                .any(holds)
    }

    /// The module that the file is, as `crate::peer::machine`.
    pub(crate) fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut module = vec!["crate".to_owned()];
        module.extend(inner.split('/').map(str::to_owned));
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        module
    }
}

fn numbers(lines: &[String], test: impl Fn(&str) -> bool) -> Vec<usize> {
    let numbered = lines.iter().enumerate();
    numbered
        .filter(|(_, line)| test(line))
        .map(|(index, _)| index + 1)
        .collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character| !is_word(character))
        .filter(|word| !word.is_empty())
}

/// Replaces what is no code by spaces and keeps the line structure.
fn blank_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let length = length_of_blank(rest, after_word);
        let (taken, remaining) = rest.split_at(length.max(first.len_utf8()));
        if length > 0 {
            out.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(taken);
        }
        after_word = length == 0 && is_word(first);
        rest = remaining;
    }
    out
}

/// How many bytes at the start of `rest` are a comment or a literal; zero when it is code.
fn length_of_blank(rest: &str, after_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return length_of_block_comment(rest);
    }
    let prefix = rest.find(|c| c != 'b' && c != 'r' && c != 'c').unwrap_or(0);
    let (letters, literal) = rest.split_at(prefix);
    if after_word && prefix > 0 {
        return 0;
    }
    let hashes = literal.len() - literal.trim_start_matches('#').len();
    if letters.contains('r') && literal.trim_start_matches('#').starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = literal.get(hashes + 1..).unwrap_or("");
        let body_length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return prefix + hashes + 1 + body_length;
    }
    if let Some(body) = literal.strip_prefix('"') {
        return prefix + 1 + length_of_quoted(body, '"');
    }
    if let Some(body) = literal.strip_prefix('\'') {
        let mut characters = body.chars();
        let first = characters.next();
        // `'a` without a closing quote is a lifetime.
        if first == Some('\\') || characters.next() == Some('\'') {
            return prefix + 1 + length_of_quoted(body, '\'');
        }
    }
    0
}

/// The length of a literal's body and its closing quote.
fn length_of_quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        if !escaped && character == quote {
            return at + 1;
        }
        escaped = !escaped && character == '\\';
    }
    body.len()
}

/// Block comments nest in Rust.
fn length_of_block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Blanks each item under `#[cfg(test)]`, up to its closing brace or semicolon.
fn blank_test_items(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(start);
        let mut depth = 0_i32;
        let end = item.char_indices().find_map(|(at, character)| {
            depth += match character {
                '{' | '(' | '[' => 1,
                '}' | ')' | ']' => -1,
                _ => 0,
            };
            let over = depth == 0 && (character == '}' || character == ';');
            over.then_some(at + 1)
        });
        let (blank, remaining) = item.split_at(end.unwrap_or(item.len()));
        out.push_str(before);
        out.extend(blank.chars().filter(|&character| character == '\n'));
        rest = remaining;
    }
    out.push_str(rest);
    out
}

/// A path that a file names.
pub(crate) struct Named {
    pub(crate) line: usize,
    /// Absolute: begins with `crate` or with the name of a crate.
    pub(crate) path: String,
    /// It stands at the end of a `use`, so that all below it can be reached through it.
    pub(crate) imported: bool,
}

/// Every path in the code: `use` trees spread out, `self` and `super` resolved.
pub(crate) fn named_paths(source: &Source) -> Vec<Named> {
    let tokens = tokens(source);
    let module = source.module();
    let mut named = Vec::new();
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        let next = tokens.get(at + 1).map(|(_, token)| token.as_str());
        at += 1;
        let (words, imported) = if token == "use" && next != Some("<") {
            let leaves = use_leaves(&tokens, &mut at, &[]);
            named.extend(leaves.into_iter().map(|(line, path)| Named {
                line,
                path: resolve(&path, &module),
                imported: true,
            }));
            continue;
        } else if token.starts_with(is_word) && next == Some("::") {
            (path_at(&tokens, &mut at, token), false)
        } else {
            continue;
        };
        named.push(Named {
            line: *line,
            path: resolve(&words, &module),
            imported,
        });
    }
    named
}

pub(crate) type Tokens = Vec<(usize, String)>;

/// Words, `::`, and single characters.
pub(crate) fn tokens(source: &Source) -> Tokens {
    let mut tokens: Tokens = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, remaining) = rest.split_at(length);
            tokens.push((index + 1, token.to_owned()));
            rest = remaining.trim_start();
        }
    }
    tokens
}

/// Follows `first::second::third`; `at` stands behind `first`.
fn path_at(tokens: &Tokens, at: &mut usize, first: &str) -> Vec<String> {
    let mut path = vec![first.to_owned()];
    while let (Some((_, colons)), Some((_, word))) = (tokens.get(*at), tokens.get(*at + 1)) {
        if colons != "::" || !word.starts_with(is_word) {
            break;
        }
        path.push(word.clone());
        *at += 2;
    }
    path
}

/// The paths of one `use` tree; `at` stands at its start and is left behind it.
fn use_leaves(tokens: &Tokens, at: &mut usize, prefix: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut leaves = Vec::new();
    let mut path = prefix.to_vec();
    let mut is_leaf = false;
    while let Some((line, token)) = tokens.get(*at) {
        if is_leaf && [",", "}", ";"].contains(&token.as_str()) {
            leaves.push((*line, path.clone()));
        }
        if token == ";" || token == "}" {
            break;
        }
        *at += 1;
        match token.as_str() {
            "," => {
                path = prefix.to_vec();
                is_leaf = false;
            }
            "{" => {
                leaves.extend(use_leaves(tokens, at, &path));
                // Steps over the closing brace.
                *at += 1;
                is_leaf = false;
            }
            // The new name of `as` is no part of the path.
            "as" => *at += 1,
            // All below the path can be reached, as if the path itself were imported.
            "*" => is_leaf = true,
            "self" if !path.is_empty() => is_leaf = true,
            word if word.starts_with(is_word) => {
                path.push(word.to_owned());
                is_leaf = true;
            }
            _ => {}
        }
    }
    leaves
}

/// Writes out `self` and `super` at the head of a path.
fn resolve(path: &[String], module: &[String]) -> String {
    let mut absolute: Vec<String> = Vec::new();
    for (index, word) in path.iter().enumerate() {
        match word.as_str() {
            "self" | "super" if index == 0 => {
                absolute.extend_from_slice(module);
                if word == "super" {
                    absolute.pop();
                }
            }
            "super" => {
                absolute.pop();
            }
            _ => absolute.push(word.clone()),
        }
    }
    absolute.join("::")
}
