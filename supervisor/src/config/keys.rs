//! Values of any table of a swarm file: read with their place, checked for type and bounds, problems noted.
//!
//! What does not live here: which tables and keys there are (`walk.rs`).

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, suggest};
use super::value::{self, DURATION_HELP, NAME_HELP, SIZE_HELP};
use super::walk::Walker;

/// Bytes of the text.
pub(super) type Span = Range<usize>;

/// A value with its key.
#[derive(Clone)]
pub(super) struct Entry<'t> {
    pub(super) name: &'t str,
    /// The dotted key.
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: &'t DeValue<'t>,
    pub(super) span: Span,
}

/// A table with its entries in the order of the file.
pub(super) struct Table<'t> {
    pub(super) key: String,
    /// Where to point when a key is missing.
    pub(super) span: Span,
    pub(super) entries: Vec<Entry<'t>>,
}

impl<'t> Table<'t> {
    pub(super) fn of(key: &str, span: Span, table: &'t DeTable<'t>) -> Table<'t> {
        let entry = |(name, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let text: &'t std::borrow::Cow<'t, str> = name.get_ref();
            let key = if key.is_empty() { text.to_string() } else { format!("{key}.{text}") };
            Entry { name: text, key, key_span: name.span(), value: value.get_ref(), span: value.span() }
        };
        let mut entries: Vec<Entry<'t>> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { key: key.to_owned(), span, entries }
    }

    pub(super) fn get(&self, name: &str) -> Option<Entry<'t>> {
        self.entries.iter().find(|entry| entry.name == name).cloned()
    }
}

impl Walker<'_> {
    pub(super) fn note(&mut self, span: Span, key: &str, what: impl Into<String>, help: &str) {
        self.problems.push(Problem::at(self.text, span, key.to_owned(), what.into(), help.to_owned()));
    }

    /// Notes every key of the table that means nothing.
    pub(super) fn known(&mut self, table: &Table<'_>, known: &[&str]) {
        for entry in table.entries.iter().filter(|entry| !known.contains(&entry.name)) {
            self.note(
                entry.key_span.clone(),
                &entry.key,
                "unknown key",
                &suggest(entry.name, "known here", known),
            );
        }
    }

    pub(super) fn wrong_type<T>(
        &mut self,
        entry: &Entry<'_>,
        wanted: &str,
        found: &DeValue<'_>,
        help: &str,
    ) -> Option<T> {
        let article = if found.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
        let what = format!("expected {wanted}, found {article} {}", found.type_str());
        self.note(entry.span.clone(), &entry.key, what, help);
        None
    }

    pub(super) fn table<'t>(&mut self, entry: &Entry<'t>) -> Option<Table<'t>> {
        match entry.value {
            DeValue::Table(table) => Some(Table::of(&entry.key, entry.key_span.clone(), table)),
            other => {
                let help = format!("write a table, for example [{}]", entry.key.escape_debug());
                self.wrong_type(entry, "a table", other, &help)
            }
        }
    }

    /// The tables `[kind.NAME]`, their names checked.
    pub(super) fn named_tables<'t>(&mut self, root: &Table<'t>, kind: &str) -> Vec<Table<'t>> {
        let Some(all) = root.get(kind).and_then(|entry| self.table(&entry)) else { return Vec::new() };
        let mut tables = Vec::new();
        for entry in &all.entries {
            if let Some(fault) = value::name_fault(entry.name) {
                self.note(entry.key_span.clone(), &entry.key, fault, NAME_HELP);
            }
            tables.extend(self.table(entry));
        }
        tables
    }

    pub(super) fn optional_text<'t>(&mut self, table: &Table<'t>, name: &str) -> Option<(String, Entry<'t>)> {
        let entry = table.get(name)?;
        match entry.value {
            DeValue::String(text) => Some((text.to_string(), entry)),
            other => self.wrong_type(&entry, "a string", other, "write it in double quotes"),
        }
    }

    pub(super) fn required_text<'t>(
        &mut self,
        table: &Table<'t>,
        name: &str,
        help: &str,
    ) -> Option<(String, Entry<'t>)> {
        if table.get(name).is_none() {
            self.note(table.span.clone(), &format!("{}.{name}", table.key), "missing", help);
        }
        self.optional_text(table, name)
    }

    /// A list of strings, each with its place.
    pub(super) fn texts(&mut self, entry: &Entry<'_>, help: &str) -> Option<Vec<(String, Span)>> {
        let DeValue::Array(items) = entry.value else {
            return self.wrong_type(entry, "a list of strings", entry.value, help);
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push((text.to_string(), item.span())),
                other => {
                    let item = Entry { span: item.span(), ..entry.clone() };
                    return self.wrong_type(&item, "a string", other, help);
                }
            }
        }
        Some(texts)
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, table: &Table<'_>, name: &str, min: u32, max: u32) -> Option<u32> {
        let entry = table.get(name)?;
        let help = format!("write a whole number, {min} to {max}");
        let DeValue::Integer(number) = entry.value else {
            return self.wrong_type(&entry, "a whole number", entry.value, &help);
        };
        let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let count = count.filter(|count| (min..=max).contains(count));
        if count.is_none() {
            self.note(entry.span, &entry.key, format!("{number} is out of range"), &help);
        }
        count
    }

    /// A size in bytes.
    pub(super) fn size<'t>(&mut self, table: &Table<'t>, name: &str) -> Option<(i128, Entry<'t>)> {
        let entry = table.get(name)?;
        let bytes = match entry.value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => value::size_bytes(text).map(i128::from),
            other => return self.wrong_type(&entry, "a size", other, SIZE_HELP),
        };
        if bytes.is_none() {
            self.note(entry.span.clone(), &entry.key, "this is not a size", SIZE_HELP);
        }
        bytes.map(|bytes| (bytes, entry))
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, table: &Table<'_>, name: &str) -> Option<bool> {
        let entry = table.get(name)?;
        match entry.value {
            DeValue::Boolean(flag) => Some(*flag),
            other => self.wrong_type(&entry, "true or false", other, "write true or false, without quotes"),
        }
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        table: &Table<'_>,
        name: &str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let entry = table.get(name)?;
        let DeValue::String(text) = entry.value else {
            return self.wrong_type(&entry, "a duration", entry.value, DURATION_HELP);
        };
        let Some(duration) = value::duration(text) else {
            self.note(entry.span, &entry.key, "this is not a duration", DURATION_HELP);
            return None;
        };
        if duration < min || duration > max {
            let what = format!("{duration:?} is out of range");
            let help = format!("choose {min:?} to 24h, for example \"2s\"");
            self.note(entry.span, &entry.key, what, &help);
            return None;
        }
        Some(duration)
    }

    /// One word of a fixed set.
    pub(super) fn word<T: Copy>(
        &mut self,
        word: &str,
        entry: &Entry<'_>,
        what: &str,
        all: &[T],
        spell: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let found = all.iter().copied().find(|value| spell(*value) == word);
        if found.is_none() {
            let words: Vec<&str> = all.iter().map(|value| spell(*value)).collect();
            let help = suggest(word, what, &words);
            self.note(entry.span.clone(), &entry.key, format!("unknown word {word:?}"), &help);
        }
        found
    }
}
