/** A chart of lines: figures on logarithmic axes, as SVG. */
export interface Plot {
  readonly title: string
  readonly x: string
  readonly y: string
  /** Axes in powers of ten; else the axis begins at zero. */
  readonly log?: { readonly x?: boolean; readonly y?: boolean }
  readonly lines: readonly { readonly name: string; readonly points: readonly (readonly [x: number, y: number])[] }[]
}

const colours = ['#d62728', '#1f77b4', '#2ca02c', '#9467bd', '#ff7f0e', '#8c564b', '#17becf', '#7f7f7f']
const frame = { left: 70, top: 40, width: 520, height: 320 }

interface Axis {
  readonly ticks: readonly number[]
  /** Where a value lies, from 0 to 1. */
  at(value: number): number
}

function axis(values: readonly number[], log: boolean): Axis {
  const most = Math.max(...values)
  if (!log) {
    const rough = most / 5
    const power = 10 ** Math.floor(Math.log10(rough))
    const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10)
    const end = Math.ceil(most / step) * step
    const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, n) => n * step)
    return { ticks, at: (value) => value / end }
  }
  const low = Math.floor(Math.log10(Math.min(...values)))
  const high = Math.max(low + 1, Math.ceil(Math.log10(most)))
  const ticks = Array.from({ length: high - low + 1 }, (_, n) => 10 ** (low + n))
  return { ticks, at: (value) => (Math.log10(value) - low) / (high - low) }
}

const escaped = (text: string) => text.replace(/[<>&]/g, (character) => `&#${character.charCodeAt(0)};`)

export function plot({ title, x, y, log = {}, lines }: Plot): string {
  const points = lines.flatMap((line) => line.points)
  const across = axis(
    points.map(([value]) => value),
    log.x ?? false,
  )
  const up = axis(
    points.map(([, value]) => value),
    log.y ?? false,
  )
  const { left, top, width, height } = frame
  const px = (value: number) => (left + across.at(value) * width).toFixed(1)
  const py = (value: number) => (top + height - up.at(value) * height).toFixed(1)
  const text = (at: string, content: string) => `<text ${at}>${escaped(content)}</text>`
  const label = (value: number) => value.toLocaleString('en-US')
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width + 190} ${top + height + 60}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>',
    text(`x="${left}" y="20" font-size="15"`, title),
    ...across.ticks.flatMap((value) => [
      `<path d="M${px(value)} ${top}V${top + height}" stroke="#ddd"/>`,
      text(`x="${px(value)}" y="${top + height + 18}" text-anchor="middle"`, label(value)),
    ]),
    ...up.ticks.flatMap((value) => [
      `<path d="M${left} ${py(value)}H${left + width}" stroke="#ddd"/>`,
      text(`x="${left - 6}" y="${Number(py(value)) + 4}" text-anchor="end"`, label(value)),
    ]),
    text(`x="${left + width / 2}" y="${top + height + 42}" text-anchor="middle"`, x),
    text(`x="${left}" y="${top - 6}"`, y),
    ...lines.flatMap(({ name, points: own }, index) => {
      const colour = colours[index % colours.length]
      const path = own.map(([a, b], n) => `${n === 0 ? 'M' : 'L'}${px(a)} ${py(b)}`).join('')
      const row = top + 10 + index * 20
      return [
        `<path d="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`,
        `<path d="M${left + width + 14} ${row}h20" stroke="${colour}" stroke-width="3"/>`,
        text(`x="${left + width + 40}" y="${row + 4}"`, name),
      ]
    }),
    '</svg>',
    '',
  ].join('\n')
}
