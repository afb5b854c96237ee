/** Seconds since 1970, for formats that have them. */
export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
