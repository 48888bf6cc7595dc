//! Dates of the proleptic Gregorian calendar and seconds.

/// A moment as the clock shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date {
    /// Year, 0 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
}

impl Default for Date {
    /// The moment at which every machine starts, unless it is configured otherwise: no host time reaches a guest.
    fn default() -> Self {
        Self { year: 2024, month: 1, day: 1, hour: 0, minute: 0, second: 0 }
    }
}

const DAYS_IN_400_YEARS: i64 = 146_097;

/// Days since 1 March of year 0. Years start in March, so that leap days come last.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * DAYS_IN_400_YEARS + of_era * 365 + of_era / 4 - of_era / 100 + of_year
}

impl Date {
    /// Seconds since 1 March of year 0, 00:00. Fields beyond their range count on into the next larger unit.
    pub fn seconds(self) -> i64 {
        let month = i64::from(self.month).clamp(1, 12);
        let days = day_number(i64::from(self.year), month, i64::from(self.day));
        ((days * 24 + i64::from(self.hour)) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)
    }

    /// The inverse of [`Date::seconds`].
    pub fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let within = seconds.rem_euclid(86_400);
        let era = days.div_euclid(DAYS_IN_400_YEARS);
        let of_era = days.rem_euclid(DAYS_IN_400_YEARS);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        Self {
            year: year.rem_euclid(10_000) as u16,
            month: month as u8,
            day: day as u8,
            hour: (within / 3600) as u8,
            minute: (within / 60 % 60) as u8,
            second: (within % 60) as u8,
        }
    }

    /// Day of the week, 1 (Sunday) to 7.
    pub fn weekday(self) -> u8 {
        // 1 March of year 0 was a Wednesday.
        let days = self.seconds().div_euclid(86_400);
        ((days + 3).rem_euclid(7) + 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_leap(year: u16) -> bool {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut expected = Date { year: 1800, ..Date::default() };
        let mut seconds = expected.seconds();
        while expected.year < 2201 {
            assert_eq!(Date::from_seconds(seconds), expected);
            assert_eq!(expected.seconds(), seconds);
            let february = if is_leap(expected.year) { 29 } else { 28 };
            let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            expected.day += 1;
            if expected.day > days[usize::from(expected.month) - 1] {
                expected.day = 1;
                expected.month += 1;
            }
            if expected.month > 12 {
                expected.month = 1;
                expected.year += 1;
            }
            seconds += 86_400;
        }
    }

    #[test]
    fn known_days_have_their_weekday() {
        let day = |year, month, day| Date { year, month, day, ..Date::default() };
        assert_eq!(day(2024, 1, 1).weekday(), 2, "a Monday");
        assert_eq!(day(1969, 7, 20).weekday(), 1, "a Sunday");
        assert_eq!(day(2000, 2, 29).weekday(), 3, "a Tuesday");
        assert_eq!(day(1989, 11, 9).weekday(), 5, "a Thursday");
    }
}
