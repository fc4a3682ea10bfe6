import test from 'ava'
import { type Elements, kernels } from '../../lib/kernels.ts'
import * as reference from './reference.ts'

const { bytes, close, differences, dot, doubles, elements, normal, pick, spread } = reference

interface Case {
  heads: number
  kvHeads: number
  headDim: number
  lengths: number[]
}

const cases: Case[] = [
  { heads: 1, kvHeads: 1, headDim: 2, lengths: [1] },
  { heads: 3, kvHeads: 1, headDim: 6, lengths: [3, 0, 1] },
  { heads: 4, kvHeads: 2, headDim: 30, lengths: [31, 47] },
  { heads: 9, kvHeads: 3, headDim: 64, lengths: [123, 1, 65] },
  { heads: 2, kvHeads: 2, headDim: 128, lengths: [64, 70] },
  { heads: 2, kvHeads: 1, headDim: 256, lengths: [66] },
]

function inputs({ heads, kvHeads, headDim, lengths }: Case, dtype: reference.DTypeName) {
  const rows = lengths.reduce((sum, length) => sum + length, 0)
  const offsets = Int32Array.from([0, ...lengths], (_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0))
  return {
    q: elements(normal(1, rows * heads * headDim), dtype),
    k: elements(normal(2, rows * kvHeads * headDim), dtype),
    v: elements(normal(3, rows * kvHeads * headDim), dtype),
    offsets,
    heads,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
  }
}

const name = (c: Case) => `${c.heads}/${c.kvHeads} heads of ${c.headDim}, lengths ${c.lengths.join(' ')}`

for (const dtype of reference.dtypes) {
  const rounding = dtype === 'f32' ? 0 : 2 ** -8
  for (const shape of cases) {
    test(`attention ${dtype}: ${name(shape)} equals the reference`, async (t) => {
      const args = inputs(shape, dtype)
      const { out, logSumExp } = await kernels.attention(args)
      const expected = reference.attention(doubles(args.q), doubles(args.k), doubles(args.v), args)
      close(t, 'out', out, expected.out, { absolute: 3e-6 + rounding / 10, relative: 3e-6 + rounding })
      close(t, 'logSumExp', logSumExp, expected.logSumExp, { absolute: 3e-6, relative: 3e-6 })
    })

    test(`attentionBackward ${dtype}: ${name(shape)} equals finite differences`, async (t) => {
      const args = inputs(shape, dtype)
      const forward = await kernels.attention(args)
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

  test(`attention ${dtype}: packed equals one by one, bit for bit, on 1, 2 and 3 threads`, async (t) => {
    const shape = { heads: 9, kvHeads: 3, headDim: 64, lengths: [130, 1, 64, 65, 7] }
    const args = inputs(shape, dtype)
    const packed = await kernels.attention(args, { threads: 1 })
    for (const threads of [1, 2, 3]) {
      t.deepEqual(bytes((await kernels.attention(args, { threads })).out), bytes(packed.out))
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
        const { out, logSumExp } = await kernels.attention(one, { threads })
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
      const whole = await kernels.attention(args, { threads: 1 })
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
          { threads: 1 + (end % 3) },
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

test('attention: scores far apart stay finite, and one huge key takes all', async (t) => {
  const args = inputs({ heads: 1, kvHeads: 1, headDim: 4, lengths: [3] }, 'f32')
  args.q.fill(100)
  args.k.set([-100, -100, -100, -100, 100, 100, 100, 100, -100, -100, -100, -100])
  const { out } = await kernels.attention(args)
  t.deepEqual(out.slice(4, 8), args.v.slice(4, 8))
  t.deepEqual(out.slice(8, 12), args.v.slice(4, 8))
})

test('attentionBackward: the same call twice gives the same bits', async (t) => {
  const args = inputs({ heads: 9, kvHeads: 3, headDim: 64, lengths: [123, 65, 1] }, 'f32')
  const forward = await kernels.attention(args)
  const call = () => kernels.attentionBackward({ ...args, ...forward, dout: normal(4, args.q.length) })
  const [first, second] = [await call(), await call()]
  for (const key of ['dq', 'dk', 'dv'] as const) t.deepEqual(bytes(first[key]), bytes(second[key]))
})
