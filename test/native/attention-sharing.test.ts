/** Decoded rows that read the same pages are taken together; no bit of a row may show it. */
import test from 'ava'
import { type Elements, kernels } from '../../lib/kernels.ts'
import { bytes, dtypes, elements, normal } from './reference.ts'

const heads = 6
const kvHeads = 2
const headDim = 64
const queryWidth = heads * headDim
const page = 64 * kvHeads * headDim

/**
 * Groups of rows with two pages in common and up to two of their own, some at the last key of a page; and between the
 * groups a prompt's 70 rows.
 */
function batch(dtype: (typeof dtypes)[number]) {
  const pages: number[] = []
  const pageOffsets = [0]
  const queryOffsets = [0]
  const positions: number[] = []
  let next = 0
  const add = (shared: number[], position: number, rows: number) => {
    pages.push(...shared)
    for (let count = shared.length; count * 64 < position + rows; count++) pages.push(next++)
    pageOffsets.push(pages.length)
    positions.push(position)
    queryOffsets.push(queryOffsets.at(-1)! + rows)
  }
  for (const members of [8, 1, 17, 9]) {
    const shared = [next++, next++]
    for (let i = 0; i < members; i++) add(shared, [128, 191, 140, 192, 155][i % 5]!, 1)
    add([], 30, 70)
  }
  const rows = queryOffsets.at(-1)!
  return {
    q: elements(normal(1, rows * queryWidth), dtype),
    keys: elements(normal(2, next * page), dtype),
    values: elements(normal(3, next * page), dtype),
    pages: Int32Array.from(pages),
    pageOffsets: Int32Array.from(pageOffsets),
    queryOffsets: Int32Array.from(queryOffsets),
    positions: Int32Array.from(positions),
    heads,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
  }
}

/** One sequence of a batch, on pages that nobody shares. */
function alone(args: ReturnType<typeof batch>, s: number) {
  const own = args.pages.slice(args.pageOffsets[s]!, args.pageOffsets[s + 1]!)
  const copy = (from: Elements) => {
    const to = new (from.constructor as Float32ArrayConstructor)(own.length * page)
    own.forEach((index, i) => {
      to.set(from.subarray(index * page, (index + 1) * page), i * page)
    })
    return to as Elements
  }
  return {
    ...args,
    q: args.q.slice(args.queryOffsets[s]! * queryWidth, args.queryOffsets[s + 1]! * queryWidth),
    keys: copy(args.keys),
    values: copy(args.values),
    pages: Int32Array.from(own, (_, i) => i),
    pageOffsets: Int32Array.of(0, own.length),
    queryOffsets: Int32Array.of(0, args.queryOffsets[s + 1]! - args.queryOffsets[s]!),
    positions: args.positions.slice(s, s + 1),
  }
}

for (const dtype of dtypes) {
  for (const threads of [1, 2, 3]) {
    test(`pagedAttention ${dtype}, ${threads} threads: rows that share pages have the bits that each has alone`, async (t) => {
      const args = batch(dtype)
      const together = await kernels.pagedAttention(args, { threads })
      for (let s = 0; s < args.positions.length; s++) {
        const { out } = await kernels.pagedAttention(alone(args, s), { threads: 1 })
        const [begin, end] = [args.queryOffsets[s]! * queryWidth, args.queryOffsets[s + 1]! * queryWidth]
        t.deepEqual(bytes(out), bytes(together.out.slice(begin, end)), `sequence ${s}`)
      }
    })
  }
}
