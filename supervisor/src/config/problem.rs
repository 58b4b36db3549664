//! What is wrong with a swarm file, as text that points at the place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// The column, in characters, from 1; 0 if the file as a whole is meant.
    pub column: usize,
    /// The dotted key, as in `agent.worker.replicas`; empty if no key is to blame.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What the user can do.
    pub help: String,
    /// The bytes of the text that are meant.
    span: Range<usize>,
}

impl Problem {
    /// A problem at a span of the text.
    pub(super) fn at(text: &str, span: Range<usize>, key: String, what: String, help: String) -> Problem {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let (line, column) = place(text, start);
        Problem { line, column, key, what, help, span: start..end }
    }

    /// The report: title, `file:line:column`, excerpt with carets, help.
    fn render(&self, path: &str, text: &str) -> String {
        let title = match (self.key.as_str(), self.what.as_str()) {
            ("", what) => what.to_owned(),
            (key, what) => format!("`{key}`: {what}"),
        };
        let help = Level::HELP.message(self.help.as_str());
        let group = Level::ERROR.primary_title(title);
        if self.line == 0 {
            return Renderer::plain()
                .render(&[group.element(annotate_snippets::Origin::path(path)).element(help)]);
        }
        let mark = AnnotationKind::Primary.span(self.span.clone());
        let snippet = Snippet::source(text).path(path).annotation(mark);
        Renderer::plain().render(&[group.element(snippet).element(help)])
    }
}

/// Everything that is wrong with a swarm file, in the order of the file. `Display` is the whole report.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one problem.
    pub problems: Vec<Problem>,
    /// The reports of `problems`, rendered.
    report: String,
}

impl ConfigError {
    /// The error of these problems.
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|p| (p.span.start, p.span.end));
        let shown: String = path.to_string_lossy().escape_debug().collect();
        let reports: Vec<String> = problems.iter().map(|p| p.render(&shown, text)).collect();
        ConfigError { path: path.to_owned(), problems, report: reports.join("\n\n") }
    }

    /// An error of the file as a whole.
    pub(super) fn of_file(path: &Path, what: String, help: String) -> ConfigError {
        let problem = Problem { line: 0, column: 0, key: String::new(), what, help, span: 0..0 };
        ConfigError::new(path, "", vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl std::error::Error for ConfigError {}

/// Line and column, both from 1, of a byte of the text.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor(text, at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The nearest character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The known word that a mistyped one probably means.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// "did you mean `a`? known: `a`, `b`".
pub(super) fn suggest(word: &str, what: &str, known: &[&str]) -> String {
    let shown_max = 12;
    let mut list: Vec<String> = known.iter().take(shown_max).map(|k| format!("`{k}`")).collect();
    if known.len() > shown_max {
        list.push(format!("and {} more", known.len() - shown_max));
    }
    let list = list.join(", ");
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {what}: {list}"),
        None if known.is_empty() => format!("{what}: none"),
        None => format!("{what}: {list}"),
    }
}
