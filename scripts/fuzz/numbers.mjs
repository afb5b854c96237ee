/** @param {string} text @returns {number | undefined} undefined if it is not a positive integer */
export function positiveInteger(text) {
  const number = Number(text);
  return Number.isSafeInteger(number) && number > 0 ? number : undefined;
}

/** @param {string} text  positive integers, `A,B,C` @returns {number[] | undefined} undefined if one of them is something else */
export function positiveIntegers(text) {
  const numbers = text.split(",").map(positiveInteger);
  return numbers.every((number) => number !== undefined) ? numbers : undefined;
}
