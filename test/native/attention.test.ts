import type { ExecutionContext } from 'ava'
import type { Elements } from '../../lib/kernels.ts'
import { devices } from './devices.ts'
import * as reference from './reference.ts'

const { bytes, close, differences, dot, doubles, elements, normal, pick, spread } = reference

interface Case {
  heads: number
  kvHeads: number
  headDim: number
  /** Rows of the sequences. */
  lengths: number[]
  /** Keys that each sequence shares with the one before; none by default. */
  positions?: number[]
}

const cases: Case[] = [
  { heads: 1, kvHeads: 1, headDim: 2, lengths: [1] },
  { heads: 3, kvHeads: 1, headDim: 6, lengths: [3, 0, 1] },
  { heads: 4, kvHeads: 2, headDim: 30, lengths: [31, 47] },
  { heads: 9, kvHeads: 3, headDim: 64, lengths: [123, 1, 65] },
  { heads: 2, kvHeads: 2, headDim: 128, lengths: [64, 70] },
  { heads: 2, kvHeads: 1, headDim: 256, lengths: [66] },
  { heads: 2, kvHeads: 1, headDim: 6, lengths: [3, 1, 2], positions: [0, 1, 2] },
  { heads: 4, kvHeads: 2, headDim: 30, lengths: [70, 5, 66, 0, 9], positions: [0, 65, 69, 63, 40] },
  { heads: 3, kvHeads: 3, headDim: 18, lengths: [65, 250, 60, 3, 40], positions: [0, 64, 128, 7, 0] },
]

function inputs({ heads, kvHeads, headDim, lengths, positions }: Case, dtype: reference.DTypeName) {
  const rows = lengths.reduce((sum, length) => sum + length, 0)
  const offsets = Int32Array.from([0, ...lengths], (_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0))
  return {
    q: elements(normal(1, rows * heads * headDim), dtype),
    k: elements(normal(2, rows * kvHeads * headDim), dtype),
    v: elements(normal(3, rows * kvHeads * headDim), dtype),
    offsets,
    positions: positions && Int32Array.from(positions),
    heads,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
  }
}

const name = (c: Case) =>
  `${c.heads}/${c.kvHeads} heads of ${c.headDim}, lengths ${c.lengths.join(' ')}` +
  (c.positions ? ` from ${c.positions.join(' ')}` : '')

/**
 * What rounding may do to each element of the output: sums are f32; a bf16 output is rounded once, and where tensor
 * cores multiply weights with values, so is each weight.
 */
function outputBounds(args: ReturnType<typeof inputs>, expected: Float64Array, device: string): Float64Array {
  if (args.q instanceof Float32Array) return expected.map((value) => 3e-6 + 3e-6 * Math.abs(value))
  const half = 2 ** -8
  if (device === 'cpu') return expected.map((value) => 3e-6 + half / 10 + half * Math.abs(value))
  const sizes = doubles(args.v).map(Math.abs)
  const weighted = reference.attention(doubles(args.q), doubles(args.k), sizes, args).out
  return expected.map((value, i) => 3e-6 + half * (Math.abs(value) + weighted[i]!))
}

function withinBounds(
  t: ExecutionContext,
  name: string,
  actual: Elements,
  expected: Float64Array,
  bounds: Float64Array,
) {
  const used = Float32Array.from(doubles(actual), (value, i) => (value - expected[i]!) / bounds[i]!)
  close(t, name, used, new Float64Array(used.length), { absolute: 1, relative: 0 })
}

for (const { name: device, kernels, test, ways } of devices) {
  for (const dtype of reference.dtypes) {
    for (const [i, shape] of cases.entries()) {
      test(`attention ${dtype}: ${name(shape)} equals the reference`, async (t) => {
        const args = inputs(shape, dtype)
        const { out, logSumExp } = await kernels.attention(args, ways[i % ways.length]!())
        const expected = reference.attention(doubles(args.q), doubles(args.k), doubles(args.v), args)
        withinBounds(t, 'out', out, expected.out, outputBounds(args, expected.out, device))
        close(t, 'logSumExp', logSumExp, expected.logSumExp, { absolute: 3e-6, relative: 3e-6 })
      })
    }

    test(`attention ${dtype}: packed equals one by one, bit for bit, whatever shares the work`, async (t) => {
      const shape = { heads: 9, kvHeads: 3, headDim: 64, lengths: [130, 1, 64, 65, 7] }
      const args = inputs(shape, dtype)
      const packed = await kernels.attention(args, ways[0]!())
      for (const way of ways) {
        t.deepEqual(bytes((await kernels.attention(args, way())).out), bytes(packed.out))
        for (let s = 0; s < shape.lengths.length; s++) {
          const rows = (values: Elements, width: number) =>
            values.slice(args.offsets[s]! * width, args.offsets[s + 1]! * width)
          const one = {
            ...args,
            q: rows(args.q, 576),
            k: rows(args.k, 192),
            v: rows(args.v, 192),
            offsets: Int32Array.of(0, shape.lengths[s]!),
          }
          const { out, logSumExp } = await kernels.attention(one, way())
          t.deepEqual(bytes(out), bytes(rows(packed.out, 576)))
          const sums = packed.logSumExp.slice(args.offsets[s]! * 9, args.offsets[s + 1]! * 9)
          t.deepEqual(bytes(logSumExp), bytes(sums))
        }
      }
    })

    test(`pagedAttention ${dtype}: chunks and single rows over scattered pages equal the whole, bit for bit`, async (t) => {
      const length = 150
      for (const [heads, kvHeads, headDim] of [
        [9, 3, 64],
        [2, 2, 30],
        [8, 1, 128],
      ] as const) {
        const args = inputs({ heads, kvHeads, headDim, lengths: [length] }, dtype)
        const whole = await kernels.attention(args, ways[1]!())
        const order = [4, 0, 2]
        const width = kvHeads * headDim
        const page = (values: Elements) => {
          const pages = elements(new Float32Array(5 * 64 * width).fill(Number.NaN), dtype)
          order.forEach((to, from) => {
            pages.set(
              values.subarray(from * 64 * width, Math.min(length, (from + 1) * 64) * width) as never,
              to * 64 * width,
            )
          })
          return pages
        }
        const cache = {
          keys: page(args.k),
          values: page(args.v),
          pages: Int32Array.from(order),
          pageOffsets: Int32Array.of(0, 3),
        }
        for (const [begin, end] of [
          [0, 1],
          [0, 150],
          [63, 64],
          [64, 65],
          [100, 131],
          [149, 150],
        ] as const) {
          const query = args.q.slice(begin * heads * headDim, end * heads * headDim)
          const some = await kernels.pagedAttention(
            {
              ...cache,
              q: query,
              queryOffsets: Int32Array.of(0, end - begin),
              positions: Int32Array.of(begin),
              heads,
              kvHeads,
              headDim,
            },
            ways[end % 3]!(),
          )
          t.deepEqual(
            bytes(some.out),
            bytes(whole.out.slice(begin * heads * headDim, end * heads * headDim)),
            `${begin}..${end}`,
          )
        }
      }
    })
  }
}

for (const { kernels, test, ways } of devices) {
  for (const dtype of reference.dtypes) {
    for (const [i, shape] of cases.entries()) {
      test(`attentionBackward ${dtype}: ${name(shape)} equals finite differences`, async (t) => {
        const args = inputs(shape, dtype)
        const forward = await kernels.attention(args, ways[i % ways.length]!())
        const dout = elements(normal(4, args.q.length), dtype)
        const { dq, dk, dv } = await kernels.attentionBackward({ ...args, ...forward, dout })
        const [q, k, v, weights] = [args.q, args.k, args.v, dout].map(doubles) as Float64Array[]
        const bound =
          dtype === 'f32' ? { absolute: 3e-5, relative: 3e-5 } : { absolute: 0.02, relative: 2 ** -6 }
        const at = spread(q!.length, 5)
        const loss = (a: Float64Array, b: Float64Array, c: Float64Array) =>
          dot(weights!, reference.attention(a, b, c, args).out)
        close(
          t,
          'dq',
          pick(dq, at),
          differences((x) => loss(x, k!, v!), q!, at),
          bound,
        )
        const kvAt = spread(k!.length, 5)
        close(
          t,
          'dk',
          pick(dk, kvAt),
          differences((x) => loss(q!, x, v!), k!, kvAt),
          bound,
        )
        close(
          t,
          'dv',
          pick(dv, kvAt),
          differences((x) => loss(q!, k!, x), v!, kvAt),
          bound,
        )
      })
    }
  }
}

/** The rows of sequences with all their keys, one after another. */
function unshared(args: ReturnType<typeof inputs>) {
  const paths = reference.keyRows(args)
  const rows = paths.flat()
  const starts = paths.map((_, s) => paths.slice(0, s).reduce((sum, { length }) => sum + length, 0))
  const repeat = (values: Elements, width: number) => {
    const all = new (values.constructor as Float32ArrayConstructor)(rows.length * width)
    rows.forEach((row, i) => {
      all.set(values.subarray(row * width, (row + 1) * width), i * width)
    })
    return all as Elements
  }
  const offsets = Int32Array.from([...starts, rows.length])
  // Where a row stands in its own sequence.
  const own = paths.flatMap((path, s) => path.map((_, i) => starts[s]! + i).slice(args.positions?.[s] ?? 0))
  return { repeat, rows, own, offsets }
}

const take = (values: Elements, rows: readonly number[], width: number) =>
  rows.flatMap((row) => [...values.subarray(row * width, (row + 1) * width)])

const prefixes = [1, 63, 64, 65, 127, 156, 300]
const groups: Case[] = [
  ...prefixes.map((prefix, i) => {
    const members = [2, 3, 8][i % 3]!
    const lengths = Array.from({ length: members }, (_, s) => (s === 0 ? prefix : 0) + 1 + ((s * 23) % 70))
    const positions = lengths.map((_, s) => (s === 0 ? 0 : prefix))
    return { heads: 6, kvHeads: 2, headDim: 20, lengths, positions }
  }),
  {
    heads: 3,
    kvHeads: 1,
    headDim: 64,
    lengths: [200, 9, 140, 70, 1, 80],
    positions: [0, 130, 137, 3, 70, 0],
  },
]

for (const { name: device, kernels, test, ways } of devices) {
  for (const shape of device === 'cpu' ? groups : groups.slice(-4)) {
    test(`attention: keys that are shared give the bits of keys that are not (${name(shape)})`, async (t) => {
      for (const dtype of reference.dtypes) {
        const args = inputs(shape, dtype)
        const { repeat, own, offsets } = unshared(args)
        const widths = [shape.heads * shape.headDim, shape.kvHeads * shape.headDim] as const
        const all = {
          ...args,
          ...{ q: repeat(args.q, widths[0]), k: repeat(args.k, widths[1]), v: repeat(args.v, widths[1]) },
          ...{ offsets, positions: undefined },
        }
        const expected = await kernels.attention(all, ways[0]!())
        for (const way of ways) {
          const shared = await kernels.attention(args, way())
          t.deepEqual([...shared.out], take(expected.out, own, widths[0]))
          t.deepEqual([...shared.logSumExp], take(expected.logSumExp, own, shape.heads))
        }
      }
    })
  }
}

for (const { name: device, kernels, test, ways } of devices) {
  for (const shape of device === 'cpu' ? groups : groups.slice(-4)) {
    test(`attentionBackward: a shared key's gradient is the sum over its sequences (${name(shape)})`, async (t) => {
      const args = inputs(shape, 'f32')
      const { repeat, rows, own, offsets } = unshared(args)
      const [width, kvWidth] = [shape.heads * shape.headDim, shape.kvHeads * shape.headDim]
      const all = {
        ...args,
        ...{ q: repeat(args.q, width), k: repeat(args.k, kvWidth), v: repeat(args.v, kvWidth) },
        ...{ offsets, positions: undefined },
      }
      const dout = normal(4, args.q.length)
      // A row's own gradient counts once.
      const spreadOut = new Float32Array(all.q.length)
      own.forEach((at, row) => {
        spreadOut.set(dout.subarray(row * width, (row + 1) * width), at * width)
      })
      const forward = await kernels.attention(all)
      const expected = await kernels.attentionBackward({ ...all, ...forward, dout: spreadOut })
      const sums = { dk: new Float64Array(args.k.length), dv: new Float64Array(args.k.length) }
      for (const key of ['dk', 'dv'] as const) {
        rows.forEach((row, i) => {
          for (let j = 0; j < kvWidth; j++) sums[key][row * kvWidth + j]! += expected[key][i * kvWidth + j]!
        })
      }
      const outputs = await kernels.attention(args)
      const first = await kernels.attentionBackward({ ...args, ...outputs, dout }, ways[0]!())
      t.deepEqual([...first.dq], take(expected.dq, own, width))
      for (const key of ['dk', 'dv'] as const) {
        const largest = sums[key].reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        close(t, key, first[key], sums[key], { absolute: 1e-6 * largest, relative: 0 })
      }
      for (const way of ways.slice(1)) {
        const again = await kernels.attentionBackward({ ...args, ...outputs, dout }, way())
        for (const key of ['dq', 'dk', 'dv'] as const) t.deepEqual(bytes(again[key]), bytes(first[key]))
      }
    })
  }
}

for (const { kernels, test } of devices) {
  test('attention: scores far apart stay finite, and one huge key takes all', async (t) => {
    const args = inputs({ heads: 1, kvHeads: 1, headDim: 4, lengths: [3] }, 'f32')
    args.q.fill(100)
    args.k.set([-100, -100, -100, -100, 100, 100, 100, 100, -100, -100, -100, -100])
    const { out } = await kernels.attention(args)
    t.deepEqual(out.slice(4, 8), args.v.slice(4, 8))
    t.deepEqual(out.slice(8, 12), args.v.slice(4, 8))
  })
}

for (const { kernels, test } of devices) {
  test('attentionBackward: the same call twice gives the same bits', async (t) => {
    const args = inputs({ heads: 9, kvHeads: 3, headDim: 64, lengths: [123, 65, 1] }, 'f32')
    const forward = await kernels.attention(args)
    const call = () => kernels.attentionBackward({ ...args, ...forward, dout: normal(4, args.q.length) })
    const [first, second] = [await call(), await call()]
    for (const key of ['dq', 'dk', 'dv'] as const) t.deepEqual(bytes(first[key]), bytes(second[key]))
  })
}
