/** The emulated CUDA device itself: the layouts of the PTX ISA (mma.m16n8k16 for .bf16, ldmatrix) and its reports. */
import test from 'ava'
import { fromBfloat16, toBfloat16 } from '../../lib/bfloat16.ts'
import { loadEmulated } from '../../lib/native.ts'
import { hasEmulated } from './devices.ts'
import { normal } from './reference.ts'

const run = hasEmulated ? test.serial : test.skip
const seeds = [0, 1, 2, 3]

/** Values that bf16 holds exactly. */
const small = (seed: number, count: number) => normal(seed, count).map((value) => Math.round(value * 16) / 16)

// Row and column of element i of lane's fragment, as in the figures of the PTX ISA.
const a = (lane: number, i: number): [row: number, column: number] => [
  (lane >> 2) + (i < 2 || (i >= 4 && i < 6) ? 0 : 8),
  (lane % 4) * 2 + (i & 1) + (i >= 4 ? 8 : 0),
]
const b = (lane: number, i: number): [row: number, column: number] => [
  (lane % 4) * 2 + (i & 1) + (i >= 2 ? 8 : 0),
  lane >> 2,
]
const c = (lane: number, i: number): [row: number, column: number] => [
  (lane >> 2) + (i < 2 ? 0 : 8),
  (lane % 4) * 2 + (i & 1),
]

function fragments(
  matrix: Float32Array,
  columns: number,
  count: number,
  place: (lane: number, i: number) => [number, number],
) {
  return Float32Array.from({ length: 32 * count }, (_, index) => {
    const [row, column] = place(Math.floor(index / count), index % count)
    return matrix[row * columns + column]!
  })
}

run('mma.m16n8k16 multiplies fragments laid out as in the PTX ISA', (t) => {
  const left = small(1, 16 * 16)
  const right = small(2, 16 * 8)
  const product = new Float32Array(16 * 8)
  for (let row = 0; row < 16; row++) {
    for (let column = 0; column < 8; column++) {
      for (let k = 0; k < 16; k++) product[row * 8 + column]! += left[row * 16 + k]! * right[k * 8 + column]!
    }
  }
  for (const seed of seeds) {
    loadEmulated().emulation.setSeed(seed)
    const result = loadEmulated().emulation.mma(fragments(left, 16, 8, a), fragments(right, 8, 4, b))
    t.deepEqual(result, fragments(product, 8, 4, c))
  }
})

run('ldmatrix.x4 gives each lane the elements of the PTX ISA, plain and transposed', (t) => {
  const matrices = small(3, 4 * 64)
  for (const transposed of [false, true]) {
    const expected = Float32Array.from({ length: 256 }, (_, index) => {
      const lane = Math.floor(index / 8)
      const matrix = Math.floor((index % 8) / 2)
      const [outer, inner] = [lane >> 2, (lane % 4) * 2 + (index % 2)]
      return matrices[64 * matrix + (transposed ? inner * 8 + outer : outer * 8 + inner)]!
    })
    t.deepEqual(loadEmulated().emulation.ldmatrix(matrices, transposed), expected)
  }
})

const reports: [fault: string, report: RegExp][] = [
  ['early read', /^Early read: an asynchronous copy .* at load \(provoke\.cc:\d+\) by thread 0 in block/],
  ['unordered copy', /^(Race: thread \d+ has written|Early read: an asynchronous copy)/],
  ['unset', /^Unset shared memory is read, at load \(provoke\.cc:\d+\)/],
  [
    'out of range',
    /^Out of range: element 64 to 65 of 64, at shared memory \(provoke\.cc:\d+\) by thread 63/,
  ],
  ['too large', /^Out of range: \d+ bytes of shared memory, launched with \d+/],
  ['divergent', /^Divergent collective: other lanes wait in (shuffle|ballot) \(provoke\.cc:\d+\)/],
  ['foreign lane', /^Divergent collective: lane \d+ reads a lane that is not in the mask/],
  ['divergent barrier', /^Divergent barrier: others wait in sync_threads \(provoke\.cc:\d+\)/],
  [
    'deadlock',
    /^Deadlock: threads 0-4 in sync_warp \(provoke\.cc:\d+\), thread 5 ended, threads 6-31 in sync_warp \(provoke\.cc:\d+\), threads 32-63 ended in block \(0, 0, 0\)$/,
  ],
  ['missing barrier', /^(Race: thread \d+ has (written|used) this|Unset) shared memory/],
  ['missing second barrier', /^Race: thread \d+ has (written|used) this shared memory/],
  ['unordered atomics', /^Race: /],
  ['misaligned', /^Out of range: a load of 16 bytes is not aligned/],
]

run('a kernel without a fault runs through', (t) => {
  for (const seed of seeds) {
    loadEmulated().emulation.setSeed(seed)
    t.is(loadEmulated().emulation.provoke('none'), '')
  }
})

for (const [fault, report] of reports) {
  run(`the emulation reports: ${fault}`, (t) => {
    for (const seed of seeds) {
      loadEmulated().emulation.setSeed(seed)
      t.regex(loadEmulated().emulation.provoke(fault), report)
    }
  })
}

run('rows are gathered, scattered and converted, in pieces of 16 bytes or less', (t) => {
  for (const width of [1, 7, 8, 24, 123]) {
    const values = normal(width, 5 * width)
    const indices = [4, 0, 0, 3]
    const rounded = fromBfloat16(toBfloat16(values))
    const expected = indices.toReversed().flatMap((row) => [...rounded.slice(row * width, (row + 1) * width)])
    t.deepEqual([...loadEmulated().emulation.moveRows(values, Float32Array.from(indices), width)], expected)
  }
})
