//! Counts in words for people: one of a thing is told as one.

/// `1 death`, `2 deaths`: so many of what is called so.
pub fn counted(count: impl Into<u64>, one: &str) -> String {
    match count.into() {
        1 => format!("1 {one}"),
        count if one.ends_with('s') => format!("{count} {one}es"),
        count => format!("{count} {one}s"),
    }
}

/// `one` of a single thing, `more` of any other number.
pub fn one_or(count: u64, one: &'static str, more: &'static str) -> &'static str {
    if count == 1 { one } else { more }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_told_as_one_and_any_other_number_as_many() {
        let told = [0_u32, 1, 2].map(|count| counted(count, "death"));
        assert_eq!(told, ["0 deaths", "1 death", "2 deaths"]);
        assert_eq!([1_u32, 3].map(|count| counted(count, "process")), ["1 process", "3 processes"]);
    }
}
