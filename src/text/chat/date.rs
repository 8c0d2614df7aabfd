//! Dates, for templates that print the current one.

use std::time::{SystemTime, UNIX_EPOCH};

use super::limits::{Result, fail};

/// Formats a time in UTC like `strftime`.
pub(super) fn strftime(format: &str, time: SystemTime) -> Result<String> {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let (year, month, day, of_year) = civil(days);
    let (weekday, month_name) = (DAYS[(days % 7) as usize], MONTHS[month - 1]);
    let hour12 = (hour + 11) % 12 + 1;
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut letter = rest.next();
        let bare = letter == Some('-');
        if bare {
            letter = rest.next();
        }
        let number = |value: u64, width: usize| if bare { value.to_string() } else { format!("{value:0width$}") };
        text += &match letter {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month as u64, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:>2}"),
            Some('j') => number(of_year + 1, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".into(),
            Some('z') => "+0000".into(),
            Some('%') => "%".into(),
            other => return fail(format!("strftime_now: unknown directive `%{}`", other.unwrap_or(' '))),
        };
    }
    Ok(text)
}

/// Returns year, month (from 1), day (from 1) and day of the year (from 0) of a day since 1970.
fn civil(mut days: u64) -> (u64, usize, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    // Four centuries have 146 097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = days;
    for month in 1..12 {
        let len = match month {
            2 => 28 + u64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if days < len {
            return (year, month, days + 1, of_year);
        }
        days -= len;
    }
    (year, 12, days + 1, of_year)
}
