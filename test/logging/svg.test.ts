import test from 'ava'
import { lineChart, seriesOf } from '../../lib/logging/svg.ts'

const records = [
  { step: 1, reward: { mean: 0.1 }, evaluation: { em: 0.5 } },
  { step: 2, reward: { mean: 0.4 } },
  { step: 3, reward: { mean: 0.9 } },
]

test('values are found by dotted path, records without them are left out', (t) => {
  t.deepEqual(seriesOf(records, 'reward.mean').points, [
    { x: 1, y: 0.1 },
    { x: 2, y: 0.4 },
    { x: 3, y: 0.9 },
  ])
  t.deepEqual(seriesOf(records, 'evaluation.em').points, [{ x: 1, y: 0.5 }])
})

test('a larger value stands higher, a later step further to the right', (t) => {
  const svg = lineChart([seriesOf(records, 'reward.mean')], { title: 'reward', xLabel: 'step' })
  const points = /points="([^"]+)"/
    .exec(svg)![1]!
    .split(' ')
    .map((point) => point.split(',').map(Number))
  t.is(points.length, 3)
  t.true(points[0]![0]! < points[1]![0]! && points[1]![0]! < points[2]![0]!)
  t.true(points[0]![1]! > points[1]![1]! && points[1]![1]! > points[2]![1]!)
})

test('titles are escaped, and no data still gives a picture', (t) => {
  const svg = lineChart([], { title: 'a < b & c', xLabel: 'step' })
  t.true(svg.includes('a &lt; b &amp; c'))
  t.false(svg.includes('NaN'))
})

test('one point and a constant series give a picture without NaN', (t) => {
  const svg = lineChart([{ name: 'x', points: [{ x: 5, y: 0 }] }], { title: 't', xLabel: 'step' })
  t.false(svg.includes('NaN'))
})

test('names that one line of the legend does not hold go on in the next, inside the picture', (t) => {
  const names = [
    'transformers bf16',
    'transformers f32',
    'llama.cpp bf16',
    'node-llama-cpp bf16',
    'ssrl bf16',
  ]
  const svg = lineChart(
    names.map((name) => ({ name, points: [{ x: 1, y: 1 }] })),
    { title: 't', xLabel: 'context' },
  )
  const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!.map(Number)
  const places = names.map((name) =>
    new RegExp(`x="([\\d.]+)" y="([\\d.]+)"[^>]*>${name}<`).exec(svg)!.slice(1).map(Number),
  )
  t.true(places.every(([x, y], i) => x! + names[i]!.length * 7 <= width! && y! < height!))
  t.is(new Set(places.map(([, y]) => y)).size, 2)
})
