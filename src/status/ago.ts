const units = [
  ['d', 86_400],
  ['h', 3600],
  ['min', 60],
] as const

/** Seconds for people: '0.4 s', '12 s', '3 min', '5 h 20 min', '2 d 4 h'. */
export function ago(seconds: number): string {
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`
  const rounded = Math.round(seconds)
  const index = units.findIndex(([, size]) => rounded >= size)
  const unit = units[index]
  if (!unit) return `${rounded} s`
  const [label, size] = unit
  const [smallLabel, smallSize] = units[index + 1] ?? ['s', 1]
  const count = Math.floor(rounded / size)
  const rest = Math.floor((rounded % size) / smallSize)
  return rest === 0 || label === 'min' ? `${count} ${label}` : `${count} ${label} ${rest} ${smallLabel}`
}
