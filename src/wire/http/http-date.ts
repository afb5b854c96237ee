const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS = 86_400_000;
/** Days in 400 years, after which the calendar repeats, and in the shorter spans within them. */
const [DAYS_400, DAYS_100, DAYS_4, DAYS_1] = [146_097, 36_524, 1_461, 365];
/** Days from 1 March of the year 0, at which a span of 400 years begins, to 1970. */
const DAYS_TO_1970 = 719_468;

/**
 * Parses a UTC time in the format of RFC 3339: `2027-01-31T12:00:00Z`, or `2027-01-31` for the beginning of the day.
 *
 * @returns seconds since 1970; undefined for other texts, and for years before 1970
 */
export function parseUtcTime(text: string): number | undefined {
  const match = /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)Z)?$/.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour = 0, minute = 0, second = 0] = match
    .slice(1)
    .map((part) => (part === undefined ? undefined : Number(part))) as number[];
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const daysOfMonth = month === 2 ? (isLeapYear ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31;
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > daysOfMonth) return undefined;
  if (hour > 23 || minute > 59 || second > 59) return undefined;
  // Years are counted from March, so that a leap day is the last one.
  const since = month > 2 ? year : year - 1;
  const ofYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  const leapDays = Math.floor(since / 4) - Math.floor(since / 100) + Math.floor(since / 400);
  const days = DAYS_1 * since + leapDays + ofYear - DAYS_TO_1970;
  return days * (DAY_MS / 1000) + hour * 3600 + minute * 60 + second;
}

/** A time as text for the field Date (IMF-fixdate, RFC 9110 §5.6.7). @param unixMs  from 1970 to 9999 */
export function formatHttpDate(unixMs: number): string {
  const days = Math.floor(unixMs / DAY_MS);
  const seconds = Math.floor((unixMs - days * DAY_MS) / 1000);
  // Years are counted from March, so that a leap day is the last one.
  const since = days + DAYS_TO_1970;
  const cycles = Math.floor(since / DAYS_400);
  const ofCycle = since - cycles * DAYS_400;
  const leapDays =
    Math.floor(ofCycle / (DAYS_4 - 1)) -
    Math.floor(ofCycle / DAYS_100) +
    Math.floor(ofCycle / (DAYS_400 - 1));
  const yearOfCycle = Math.floor((ofCycle - leapDays) / DAYS_1);
  const ofYear =
    ofCycle - (DAYS_1 * yearOfCycle + Math.floor(yearOfCycle / 4) - Math.floor(yearOfCycle / 100));
  const month = Math.floor((5 * ofYear + 2) / 153);
  const day = ofYear - Math.floor((153 * month + 2) / 5) + 1;
  const isNextYear = month >= 10;
  const year = cycles * 400 + yearOfCycle + (isNextYear ? 1 : 0);
  const two = (value: number) => String(value).padStart(2, "0");
  const time = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map(two).join(":");
  return `${DAYS[(days + 4) % 7]}, ${two(day)} ${MONTHS[(month + 2) % 12]} ${String(year).padStart(4, "0")} ${time} GMT`;
}
