//! How numbers, times and tables look for people.

use std::time::{Duration, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};
use types::Timestamp;

/// A table: columns whose head begins with `>` are numbers and stand to the right.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let first = index == 0;
        column.set_padding((if first { 0 } else { 1 }, 1));
        if head[index].starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// `1.50 MiB`
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The first year that is not written with four digits, in milliseconds since 1970.
const YEAR_10_000: u64 = 253_402_300_800_000;

/// `2026-11-21T02:07:50.123Z`; milliseconds of what is before 1970 or after 9999.
pub(crate) fn time(at: Timestamp) -> String {
    let since = u64::try_from(at.0).ok().filter(|since| *since < YEAR_10_000);
    let time = since.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_millis(since)));
    time.map_or_else(|| at.to_string(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// `3m 20s`: milliseconds for what is short, seconds for the rest.
pub(crate) fn span(ms: u64) -> String {
    let exact = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(exact)).to_string()
}

/// A value, or `-` where there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_312_070_123, "2026-11-22T01:47:50.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "253402300800000ms"),
            (-5, "-5ms"),
            (i64::MIN, "-inf"),
            (i64::MAX, "+inf"),
        ] {
            assert_eq!(time(Timestamp(at)), expected);
        }
    }
}
