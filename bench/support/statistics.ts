/** The middle value; the mean of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const half = Math.floor(sorted.length / 2)
  const upper = sorted[half]
  const lower = sorted[half - 1]
  if (upper === undefined) throw new Error('median of nothing')
  return sorted.length % 2 === 1 || lower === undefined ? upper : (lower + upper) / 2
}

/** Median of the ratios a[i] / b[i]: rounds are interleaved, so that a slow moment of the machine hits both sides. */
export function ratio(a: readonly number[], b: readonly number[]): number {
  return median(a.map((value, round) => value / (b[round] ?? Number.NaN)))
}

/** Whole numbers with thousands separators; small ones with two decimals. */
export function figure(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : value.toFixed(2)
}
