/** Line charts as SVG text, without any library: step records in, a picture for a page out. */

export interface Series {
  name: string
  /** y over x; points whose y is not finite are left out. */
  points: readonly { x: number; y: number }[]
}

export interface ChartOptions {
  title: string
  xLabel: string
  width?: number
  height?: number
}

const colors = ['#2563eb', '#dc2626', '#059669', '#d97706', '#7c3aed', '#0891b2', '#6b7280', '#db2777']
const legendLine = 16
const margin = { top: 40, right: 20, bottom: 64, left: 56 }

/**
 * One chart with a legend, which adds to the height where the names need more than one line; the y axis begins at 0 when
 * no value is below it.
 */
export function lineChart(series: readonly Series[], options: ChartOptions): string {
  const { title, xLabel, width = 720, height = 360 } = options
  const drawn = series.map(({ name, points }) => ({
    name,
    points: points.filter(({ y }) => Number.isFinite(y)),
  }))
  const all = drawn.flatMap(({ points }) => points)
  const xAxis = axis(
    all.map(({ x }) => x),
    { from: margin.left, to: width - margin.right },
    false,
  )
  const yAxis = axis(
    all.map(({ y }) => y),
    { from: height - margin.bottom, to: margin.top },
    true,
  )
  const names = legend(
    drawn.map(({ name }) => name),
    width,
    height - 12,
  )
  const whole = height + (names.lines - 1) * legendLine
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${whole}" width="${width}" height="${whole}" font-family="sans-serif" font-size="12">`,
    `<title>${escapeText(title)}</title>`,
    `<rect width="${width}" height="${whole}" fill="#ffffff"/>`,
    label(width / 2, 22, title, 'font-size="15" text-anchor="middle"'),
    ...yAxis.ticks.map((tick) => horizontal(tick, yAxis.at(tick), width)),
    ...xAxis.ticks.map((tick) =>
      label(xAxis.at(tick), height - margin.bottom + 18, format(tick), 'text-anchor="middle"'),
    ),
    label(width / 2, height - margin.bottom + 36, xLabel, 'text-anchor="middle"'),
    ...drawn.map(({ points }, index) => polyline(points, xAxis, yAxis, colorOf(index))),
    ...names.parts,
    '</svg>',
  ]
  return `${parts.join('\n')}\n`
}

interface Axis {
  ticks: number[]
  at(value: number): number
}

function axis(values: readonly number[], { from, to }: { from: number; to: number }, zero: boolean): Axis {
  const low = values.length === 0 ? 0 : values.reduce((a, b) => Math.min(a, b))
  const high = values.length === 0 ? 1 : values.reduce((a, b) => Math.max(a, b))
  const start = zero && low >= 0 ? 0 : low
  const step = niceStep((high - start || 1) / 6)
  const first = Math.floor(start / step) * step
  const last = zero ? Math.ceil(high / step - 1e-9) * step : high
  const span = last - first || 1
  const ticks: number[] = []
  for (let index = 0; first + index * step <= last + step * 1e-6; index++) ticks.push(first + index * step)
  return { ticks, at: (value) => from + ((value - first) / span) * (to - from) }
}

/** 1, 2 or 5 times a power of ten. */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough))
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= rough * (1 - 1e-9)) ?? 10
  return factor * power
}

const colorOf = (index: number) => colors[index % colors.length]!
const format = (value: number) => String(Number(value.toPrecision(6)))
const round = (value: number) => value.toFixed(1)

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

function label(x: number, y: number, text: string, attributes: string): string {
  return `<text x="${round(x)}" y="${round(y)}" fill="#111827" ${attributes}>${escapeText(text)}</text>`
}

function horizontal(tick: number, y: number, width: number): string {
  const line = `<line x1="${margin.left}" x2="${width - margin.right}" y1="${round(y)}" y2="${round(y)}" stroke="#e5e7eb"/>`
  return line + label(margin.left - 8, y + 4, format(tick), 'text-anchor="end"')
}

function polyline(points: Series['points'], xAxis: Axis, yAxis: Axis, color: string): string {
  const path = points.map(({ x, y }) => `${round(xAxis.at(x))},${round(yAxis.at(y))}`).join(' ')
  return `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>`
}

function legend(names: readonly string[], width: number, top: number): { parts: string[]; lines: number } {
  let x = margin.left
  let lines = 1
  const parts = names.flatMap((name, index) => {
    const length = 44 + name.length * 7
    if (x > margin.left && x + length > width) {
      x = margin.left
      lines++
    }
    const y = top + (lines - 1) * legendLine
    const swatch = `<rect x="${x}" y="${y - 9}" width="14" height="4" fill="${colorOf(index)}"/>`
    const text = label(x + 20, y - 3, name, '')
    x += length
    return [swatch, text]
  })
  return { parts, lines }
}

/** Values of records by dotted path, as `reward.mean`; records without the value are left out. */
export function seriesOf(records: readonly object[], path: string): Series {
  const points = records.flatMap((record) => {
    const y = path
      .split('.')
      .reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], record)
    return typeof y === 'number' ? [{ x: (record as { step: number }).step, y }] : []
  })
  return { name: path, points }
}
