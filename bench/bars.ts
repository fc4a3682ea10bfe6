export interface Bar {
  name: string
  value: number
  low: number
  high: number
}

const width = 720
const nameWidth = 190
const barHeight = 22
const gap = 8
const top = 44

const escaped = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const short = (value: number) => Number(value.toPrecision(3)).toLocaleString('en-US')

/** Horizontal bars from 0 as SVG text, with the spread from `low` to `high` as a line; ours in another colour. */
export function barChart(bars: readonly Bar[], title: string): string {
  const height = top + bars.length * (barHeight + gap) + gap
  const most = Math.max(...bars.map(({ value, high }) => Math.max(value, high)), Number.MIN_VALUE)
  const length = (value: number) => (value / most) * (width - nameWidth - 80)
  const parts = bars.map(({ name, value, low, high }, i) => {
    const y = top + i * (barHeight + gap)
    const middle = y + barHeight / 2
    const color = name.startsWith('ssrl') ? '#2563eb' : '#9ca3af'
    const end = nameWidth + length(Math.max(value, high)) + 6
    return [
      `<text x="${nameWidth - 8}" y="${middle + 4}" fill="#111827" text-anchor="end">${escaped(name)}</text>`,
      `<rect x="${nameWidth}" y="${y}" width="${length(value).toFixed(1)}" height="${barHeight}" fill="${color}"/>`,
      `<line x1="${(nameWidth + length(low)).toFixed(1)}" x2="${(nameWidth + length(high)).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#111827"/>`,
      `<text x="${end.toFixed(1)}" y="${middle + 4}" fill="#111827">${short(value)}</text>`,
    ].join('')
  })
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${width / 2}" y="24" fill="#111827" font-size="15" text-anchor="middle">${escaped(title)}</text>`,
    ...parts,
    '</svg>',
  ].join('\n')}\n`
}
