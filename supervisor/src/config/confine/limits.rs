//! The walk over `limits` of an agent.

use super::{CPUS_MAX, Limits, Scheduling};
use crate::config::keys::{Entry, Table};
use crate::config::value::DURATION_MAX;
use crate::config::walk::Walker;
use std::time::Duration;
use toml::de::DeValue;

impl Walker<'_> {
    /// Reads the bounds of an agent's processes.
    pub(super) fn limits(&mut self, table: &Table<'_>) -> Limits {
        let mut limits = Limits::default();
        let Some(table) = table.get("limits").and_then(|entry| self.table(&entry)) else { return limits };
        self.known(
            &table,
            &[
                "memory",
                "cpu",
                "cpu_time",
                "processes",
                "open_files",
                "file_size",
                "core_size",
                "nice",
                "scheduling",
                "cpus",
            ],
        );
        limits.memory_bytes = self.size_within(&table, "memory", 1 << 20);
        limits.cpu_percent = self.percent(&table, "cpu");
        limits.cpu_time = self.duration(&table, "cpu_time", Duration::from_secs(1), DURATION_MAX);
        limits.processes = self.count(&table, "processes", 1, 100_000);
        // Standard streams, control socket, epoll and what attaching needs.
        limits.open_files = self.count(&table, "open_files", 16, 1 << 20);
        limits.file_size_bytes = self.size_within(&table, "file_size", 0);
        limits.core_size_bytes = self.size_within(&table, "core_size", 0);
        limits.nice = self.nice(&table);
        limits.scheduling = self.optional_text(&table, "scheduling").and_then(|(word, entry)| {
            let found = Scheduling::of(&word);
            if found.is_none() {
                let help = "write \"other\", \"batch\", \"idle\", \"fifo:1\" to \"fifo:99\" or \"rr:1\" to \"rr:99\"";
                self.note(entry.span, &entry.key, format!("unknown word {word:?}"), help);
            }
            found
        });
        limits.cpus = self.cpus(&table);
        limits
    }

    fn size_within(&mut self, table: &Table<'_>, name: &str, min: u64) -> Option<u64> {
        let (bytes, entry) = self.size(table, name)?;
        let fitting = u64::try_from(bytes).ok().filter(|bytes| (min..=1 << 50).contains(bytes));
        if fitting.is_none() {
            let what = format!("{bytes} bytes are out of range");
            self.note(entry.span, &entry.key, what, &format!("choose {min} bytes to 1048576 GiB"));
        }
        fitting
    }

    /// `"150%"`: one and a half processors.
    fn percent(&mut self, table: &Table<'_>, name: &str) -> Option<u32> {
        let (text, entry) = self.optional_text(table, name)?;
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        let percent = percent.filter(|percent| (1..=100_000).contains(percent));
        if percent.is_none() {
            let help = "write hundredths of a processor, for example \"50%\" or \"200%\" (1% to 100000%)";
            self.note(entry.span, &entry.key, "this is no share of a processor", help);
        }
        percent
    }

    fn nice(&mut self, table: &Table<'_>) -> Option<i32> {
        let entry = table.get("nice")?;
        let help = "write a whole number, -20 (first) to 19 (last)";
        let DeValue::Integer(number) = entry.value else {
            return self.wrong_type(&entry, "a whole number", entry.value, help);
        };
        let nice = i32::from_str_radix(number.as_str(), number.radix()).ok();
        let nice = nice.filter(|nice| (-20..=19).contains(nice));
        if nice.is_none() {
            self.note(entry.span, &entry.key, format!("{number} is out of range"), help);
        }
        nice
    }

    fn cpus(&mut self, table: &Table<'_>) -> Vec<u32> {
        const HELP: &str = "write a list of processors' numbers, for example cpus = [0, 1]";
        let Some(entry) = table.get("cpus") else { return Vec::new() };
        let DeValue::Array(items) = entry.value else {
            self.wrong_type::<()>(&entry, "a list of whole numbers", entry.value, HELP);
            return Vec::new();
        };
        let mut cpus = Vec::new();
        for item in items.iter() {
            let item = Entry { value: item.get_ref(), span: item.span(), ..entry.clone() };
            let number = match item.value {
                DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            };
            match number.filter(|number| *number < CPUS_MAX) {
                Some(number) => cpus.push(number),
                None => self.note(item.span, &entry.key, "this is no processor's number", HELP),
            }
        }
        cpus
    }
}
