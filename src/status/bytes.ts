const units = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const

/** A size for people: '512 bytes', '8 kB', '1.5 GB'. */
export function size(bytes: bigint | number): string {
  let value = Number(bytes)
  let index = 0
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024
    index += 1
  }
  return `${index === 0 ? value : Number(value.toPrecision(value < 10 ? 2 : 3))} ${units[index]}`
}
