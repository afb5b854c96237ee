/**
 * Settings of tests that start real programs: their files run one after another. Under CI, whose machine may stall for longer than a test
 * allows, one that fails is tried once more, and the report says so.
 */
export const ONE_BY_ONE = {
  testTimeout: 120_000,
  hookTimeout: 60_000,
  fileParallelism: false,
  retry: process.env.CI === undefined ? 0 : 1,
};
