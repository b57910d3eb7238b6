/** Seconds, or an interval as Postgres writes it: '2 hours', '1 day 03:00'. */
export type Interval = number | string

/** As Postgres reads it. */
export function duration(interval: Interval): string {
  return typeof interval === 'number' ? `${interval} seconds` : interval
}

/** SQL for the seconds of an interval, as a JavaScript number. */
export function seconds(expression: string): string {
  return `extract(epoch from ${expression})::float8`
}
