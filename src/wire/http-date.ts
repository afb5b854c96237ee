const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS = 86_400_000;
/** Of 400 years, after which the calendar repeats, and of the shorter spans in them. */
const [DAYS_400, DAYS_100, DAYS_4, DAYS_1] = [146_097, 36_524, 1_461, 365];
/** From 1 March of the year 0, with which 400 years begin, to 1970. */
const DAYS_TO_1970 = 719_468;

/** Text of a time for the field Date (IMF-fixdate, RFC 9110 §5.6.7). @param unixMs  from 1970 to 9999 */
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
