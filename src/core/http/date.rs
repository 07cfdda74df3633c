//! The Date field's form (RFC 9110 section 5.6.7).

/// An instant as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`. Made once a second and copied from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date([u8; 29]);

impl Date {
    /// From seconds since 1970-01-01T00:00:00Z; leap seconds are not counted. Years beyond 9999 are written as 9999.
    pub fn at(unix_seconds: u64) -> Self {
        // 9999-12-31T23:59:59Z.
        let seconds = unix_seconds.min(253_402_300_799);
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        let week = b"ThuFriSatSunMonTueWed";
        let weekday = place(days % 7) * 3;
        text[..3].copy_from_slice(&week[weekday..weekday + 3]);
        digits(&mut text[5..7], day);
        let months = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let at = place(month - 1) * 3;
        text[8..11].copy_from_slice(&months[at..at + 3]);
        digits(&mut text[12..16], year);
        digits(&mut text[17..19], time / 3600);
        digits(&mut text[20..22], time / 60 % 60);
        digits(&mut text[23..25], time % 60);
        Self(text)
    }

    /// The same instant as RFC 3339 writes it, which is the form of Kubernetes: `1994-11-06T08:49:37Z`.
    pub fn rfc3339(unix_seconds: u64) -> String {
        let seconds = unix_seconds.min(253_402_300_799);
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// Its 29 characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Year, month (from 1) and day (from 1) of a day since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that a leap day is the last of its year, and in eras of 400 of them.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 31, 30, 31, 30, 31 days, twice and a bit: 153 days in five of them.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn place(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

fn digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64) -> String {
        String::from_utf8(Date::at(seconds).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn instants_of_kubernetes() {
        assert_eq!(Date::rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(Date::rfc3339(784_111_777), "1994-11-06T08:49:37Z");
    }

    #[test]
    fn instants_are_written_as_the_rfc_does() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_456_000, "Sun, 28 Feb 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(text(seconds), expected);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..200_000 {
            let (year, month, date) = civil(day);
            let expected = match before {
                (y, 12, 31) => (y + 1, 1, 1),
                (y, m, d) if d == last_day(y, m) => (y, m + 1, 1),
                (y, m, d) => (y, m, d + 1),
            };
            assert_eq!((year, month, date), expected);
            before = expected;
        }
    }

    fn last_day(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}
