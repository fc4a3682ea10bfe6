import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import fc from 'fast-check'
import { SsrlError } from '../../lib/errors.ts'
import { loadNative, type NativeGgufEntry } from '../../lib/native.ts'
import { runNative } from '../../lib/native-call.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { Gguf } from './gguf-bytes.ts'

const { readTensorFile, readTensor, writeGgufFile } = loadNative()
/** Made by fixtures/make-quantized.py with the Python package `gguf`. */
const quantized = fileURLToPath(new URL('fixtures/quantized.gguf', import.meta.url))
let folder: string
let counter = 0
const fresh = () => path.join(folder, `${counter++}.gguf`)
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-gguf-'))
})
test.after.always(() => rm(folder, { recursive: true }))

async function save(gguf: Gguf): Promise<string> {
  const name = fresh()
  await writeFile(name, gguf.bytes())
  return name
}

for (const type of ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K']) {
  test(`${type} is dequantized bit for bit as the Python package gguf does it`, async (t) => {
    const values = (await readTensor(quantized, type)) as Float32Array
    const expected = (await readTensor(quantized, `${type}.expected`)) as Float32Array
    t.is(values.length, 1024)
    t.deepEqual(new Uint32Array(values.buffer), new Uint32Array(expected.buffer))
  })
}

test('shapes are row-major and dtypes are named', async (t) => {
  const { format, tensors } = await readTensorFile(quantized)
  t.is(format, 'gguf')
  t.deepEqual(
    tensors.find((tensor) => tensor.name === 'Q6_K'),
    { name: 'Q6_K', dtype: 'Q6_K', shape: [4, 256], bytes: 4 * 210 },
  )
  t.is(tensors.find((tensor) => tensor.name === 'BF16')!.dtype, 'BF16')
})

test('metadata of every type becomes JavaScript values', async (t) => {
  const { metadata } = await readTensorFile(quantized)
  const own = Object.entries(metadata).filter(([key]) => key.startsWith('test.'))
  t.deepEqual(Object.fromEntries(own), {
    'test.u32': 4_000_000_000,
    'test.i8': -7,
    'test.u64': 2n ** 63n + 1n,
    'test.i64': -(2 ** 40),
    'test.f32': 0.5,
    'test.f64': 0.1,
    'test.bool': true,
    'test.string': 'größer 🙂',
    'test.strings': ['a', '', 'ß', '\0b'],
    'test.numbers': Int32Array.of(1, -2, 3),
    'test.floats': Float32Array.of(0.25, -1.5),
    'test.bools': Uint8Array.of(1, 0),
  })
})

test('what was written is read back: metadata with its types, shapes and values', async (t) => {
  const name = fresh()
  const metadata: Record<string, NativeGgufEntry> = {
    'general.architecture': { type: 'string', value: 'llama' },
    theta: { type: 'f32', value: 10_000 },
    count: { type: 'u32', value: 3 },
    low: { type: 'i8', value: -128 },
    large: { type: 'u64', value: 2 ** 53 - 1 },
    small: { type: 'i64', value: -(2 ** 53 - 1) },
    precise: { type: 'f64', value: 0.1 },
    yes: { type: 'bool', value: true },
    tokens: { type: 'string[]', value: ['<s>', 'Ġthe', '🙂'] },
    none: { type: 'string[]', value: [] },
    types: { type: 'i32[]', value: Int32Array.of(3, 1, -1) },
    longs: { type: 'u64[]', value: BigUint64Array.of(2n ** 63n) },
  }
  const data = Float32Array.from({ length: 128 }, (_, i) => Math.sin(i))
  const tensors = [
    { name: 'matrix', shape: [2, 64], data },
    { name: 'odd', shape: [3], data: Float32Array.of(1, 2, 3) },
    { name: 'after', shape: [1, 1, 2, 1], data: Float32Array.of(4, 5) },
    { name: 'numbers', shape: [2], data: Int32Array.of(-1, 7) },
  ]
  await writeGgufFile(name, tensors, metadata)
  const read = await readTensorFile(name)
  t.deepEqual(
    read.metadata,
    Object.fromEntries(
      Object.entries(metadata).map(([key, { value }]) => [key, value]),
    ) as typeof read.metadata,
  )
  t.deepEqual(
    read.tensors.map(({ name: tensor, shape }) => ({ name: tensor, shape })),
    tensors.map(({ name: tensor, shape }) => ({ name: tensor, shape })),
  )
  for (const tensor of tensors) t.deepEqual(await readTensor(name, tensor.name), tensor.data)
  // Every type's number is in the file as the format lists them: f32 is 6 and u32 4.
  const bytes = await readFile(name)
  t.is(bytes.readUInt32LE(bytes.indexOf('theta') + 5), 6)
  t.is(bytes.readUInt32LE(bytes.indexOf('count') + 5), 4)
})

test('every tensor begins and the file ends on a multiple of 32', async (t) => {
  const name = fresh()
  await writeGgufFile(
    name,
    [1, 2, 3].map((n) => ({ name: `x${n}`, shape: [n], data: new Float32Array(n) })),
    {},
  )
  const bytes = await readFile(name)
  t.is(bytes.length % 32, 0)
  t.deepEqual(
    [1, 2, 3].map((n) => Number(bytes.readBigUInt64LE(bytes.indexOf(`x${n}`) + 2 + 4 + 8 + 4))),
    [0, 32, 64],
  )
})

test('a Q8_0 value is off by half a step of its block at most, and blocks of zeros are zeros', async (t) => {
  const name = fresh()
  const data = Float32Array.from({ length: 96 }, (_, i) => (i < 32 ? 0 : Math.sin(i * 7) * 10 ** (i % 5)))
  data[64] = 1e-40 // a block whose largest value is subnormal
  data.fill(0, 65)
  await writeGgufFile(name, [{ name: 'x', shape: [3, 32], data, dtype: 'Q8_0' }], {})
  const read = (await readTensor(name, 'x')) as Float32Array
  for (let block = 0; block < 3; block++) {
    const part = data.subarray(block * 32, block * 32 + 32)
    const step = Math.max(...part.map(Math.abs)) / 127
    // The step is rounded to f16, by 2^-11 of itself; 127 of them add up.
    const tolerance = step * (0.5 + 127 * 2 ** -11)
    for (const [i, value] of part.entries())
      t.true(Math.abs(read[block * 32 + i]! - value) <= tolerance + 1e-38)
  }
  t.deepEqual(read.subarray(0, 32), new Float32Array(32))
})

test('writing Q8_0 rows of another length than 32s, or values that are not finite, is ERR_INVALID_ARG', async (t) => {
  const write = (data: Float32Array) =>
    runNative(() => writeGgufFile(fresh(), [{ name: 'x', shape: [data.length], data, dtype: 'Q8_0' }], {}))
  await t.throwsAsync(write(new Float32Array(48)), { code: 'ERR_INVALID_ARG', message: /multiple of 32/ })
  await t.throwsAsync(write(new Float32Array(32).fill(Infinity)), { code: 'ERR_INVALID_ARG', message: /x/ })
})

test('metadata that its type cannot hold is ERR_INVALID_ARG naming the key', async (t) => {
  const entries: NativeGgufEntry[] = [
    { type: 'u32', value: -1 },
    { type: 'u8', value: 256 },
    { type: 'i16', value: 1.5 },
    { type: 'u32', value: Number.NaN },
    { type: 'i32[]', value: Float32Array.of(1) },
    { type: 'string[]', value: [1] },
    { type: 'string', value: 1 },
    { type: 'bool', value: 0 },
    { type: 'u128', value: 0 },
    { type: '[]', value: [] },
  ]
  for (const entry of entries) {
    await t.throwsAsync(
      runNative(async () => writeGgufFile(fresh(), [], { 'some.key': entry })),
      { code: 'ERR_INVALID_ARG', message: /some\.key/ },
      JSON.stringify(entry),
    )
  }
})

test('the alignment key is honoured', async (t) => {
  const gguf = new Gguf()
    .u32Entry('general.alignment', 128)
    .tensor({ name: 'a', shape: [1], type: 0, offset: 0 })
    .tensor({ name: 'b', shape: [1], type: 0, offset: 128 })
    .data(
      128,
      Buffer.concat([
        Buffer.from(Float32Array.of(1).buffer),
        Buffer.alloc(124),
        Buffer.from(Float32Array.of(2).buffer),
      ]),
    )
  const name = await save(gguf)
  t.deepEqual(await readTensor(name, 'b'), Float32Array.of(2))
})

test('version 2 is read', async (t) => {
  const name = await save(new Gguf({ version: 2 }).stringEntry('k', 'v'))
  t.deepEqual((await readTensorFile(name)).metadata, { k: 'v' })
})

const f32 = (name: string, shape: number[] | bigint[], offset: number | bigint = 0) => ({
  name,
  shape,
  type: 0,
  offset,
})
const bad: [title: string, make: () => Gguf, message: RegExp][] = [
  ['big-endian bytes', () => new Gguf({ version: 3 << 24 }), /big-endian/],
  ['version 1', () => new Gguf({ version: 1 }), /version 1 /],
  ['version 4', () => new Gguf({ version: 4 }), /version 4 /],
  ['a huge tensor count', () => new Gguf({ tensorCount: 2n ** 63n }), /count of 9223372036854775808 tensors/],
  [
    'a huge metadata count',
    () => new Gguf({ entryCount: 2n ** 64n - 1n }),
    /count of 18446744073709551615 metadata/,
  ],
  ['one tensor more than it lists', () => new Gguf({ tensorCount: 1n }), /tensors|end of the file/],
  [
    'a huge key',
    () => new Gguf({ entryCount: 1n }).u64(2n ** 62n).raw(Buffer.alloc(64)),
    /string of 4611686018427387904/,
  ],
  ['a huge string', () => new Gguf().entry('k', 8, (g) => g.u64(2n ** 40n)), /string of 1099511627776/],
  [
    'a huge array',
    () => new Gguf().entry('k', 9, (g) => g.u32(0).u64(2n ** 50n)),
    /array of 1125899906842624 values/,
  ],
  [
    'an array whose bytes overflow',
    () => new Gguf().entry('k', 9, (g) => g.u32(10).u64(2n ** 61n + 1n)),
    /array of/,
  ],
  [
    'a huge array of strings',
    () => new Gguf().entry('k', 9, (g) => g.u32(8).u64(2n ** 40n)),
    /1099511627776 strings/,
  ],
  [
    'arrays in arrays',
    () => new Gguf().entry('k', 9, (g) => g.u32(9).u64(1n).u32(9).u64(0n)),
    /array of arrays/,
  ],
  ['an array of an unknown type', () => new Gguf().entry('k', 9, (g) => g.u32(99).u64(0n)), /unknown type/],
  ['a value of an unknown type', () => new Gguf().entry('k', 13, (g) => g.u64(0n)), /unknown type 13/],
  ['the same key twice', () => new Gguf().stringEntry('k', 'v').stringEntry('k', 'v'), /k twice/],
  [
    'a key that is not UTF-8',
    () => new Gguf({ entryCount: 1n }).u64(2n).raw(Buffer.of(0xc0, 0x80)).u32(0),
    /not UTF-8/,
  ],
  ['an alignment of 0', () => new Gguf().u32Entry('general.alignment', 0), /power of two/],
  ['an alignment of 48', () => new Gguf().u32Entry('general.alignment', 48), /power of two/],
  ['an alignment that is text', () => new Gguf().stringEntry('general.alignment', '32'), /power of two/],
  ['5 dimensions', () => new Gguf().tensor(f32('x', [1, 1, 1, 1, 1])).data(), /5 dimensions/],
  ['a shape whose product overflows', () => new Gguf().tensor(f32('x', [2 ** 40, 2 ** 40])).data(), /shape/],
  ['a negative size', () => new Gguf().tensor(f32('x', [2n ** 64n - 1n])).data(), /shape/],
  ['a tensor outside the file', () => new Gguf().tensor(f32('x', [1000])).data(), /outside/],
  ['an offset near 2^64', () => new Gguf().tensor(f32('x', [1], 2n ** 64n - 32n)).data(), /offset|outside/],
  ['an unaligned offset', () => new Gguf().tensor(f32('x', [1], 4)).data(), /unaligned/],
  [
    'overlapping tensors',
    () =>
      new Gguf()
        .tensor(f32('x', [16]))
        .tensor(f32('y', [1], 32))
        .data(),
    /overlaps/,
  ],
  [
    'the same tensor twice',
    () =>
      new Gguf()
        .tensor(f32('x', [1]))
        .tensor(f32('x', [1], 32))
        .data(),
    /x twice/,
  ],
  ['Q8_0 rows of 33', () => new Gguf().tensor({ ...f32('x', [33]), type: 8 }).data(), /shape that Q8_0/],
  ...(
    [
      [10, 'Q2_K'],
      [11, 'Q3_K'],
      [16, 'IQ2_XXS'],
      [20, 'IQ4_NL'],
      [39, 'MXFP4'],
    ] as const
  ).map(([type, name]): [string, () => Gguf, RegExp] => [
    `${name} blocks`,
    () => new Gguf().tensor({ ...f32('blk.7.x', [256]), type }).data(),
    new RegExp(`blk\\.7\\.x of type ${name} `),
  ]),
  [
    'blocks of an unknown type',
    () => new Gguf().tensor({ ...f32('x', [256]), type: 77 }).data(),
    /unknown type 77/,
  ],
]
for (const [title, make, message] of bad) {
  test(`a file with ${title} is ERR_MODEL_FORMAT`, async (t) => {
    const name = await save(make())
    await t.throwsAsync(
      runNative(() => readTensorFile(name)),
      { instanceOf: SsrlError, code: 'ERR_MODEL_FORMAT', message },
    )
  })
}

test('a file with random bytes changed or cut off is read, or refused with a code', async (t) => {
  const whole = new Gguf()
    .stringEntry('general.architecture', 'llama')
    .entry('list', 9, (g) => g.u32(8).u64(2n).string('a').string('bc'))
    .entry('numbers', 9, (g) => g.u32(4).u64(2n).u32(1).u32(2))
    .tensor({ name: 'x', shape: [2, 32], type: 8, offset: 0 })
    .tensor({ name: 'y', shape: [4], type: 0, offset: 96 })
    .data()
    .bytes()
  const name = fresh()
  const changes = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(changes, fc.option(fc.nat(whole.length)), async (bytes, length) => {
      const damaged = Buffer.from(whole.subarray(0, length ?? whole.length))
      for (const [at, value] of bytes) if (at < damaged.length) damaged[at] = value
      await writeFile(name, damaged)
      try {
        const read = await runNative(() => readTensorFile(name))
        for (const tensor of read.tensors) await runNative(() => readTensor(name, tensor.name))
      } catch (error) {
        t.true(error instanceof SsrlError && error.code === 'ERR_MODEL_FORMAT', String(error))
      }
    }),
    { numRuns: 1000 },
  )
})

// Sums in double precision that the Python package gguf 0.19.0 gives for the same file.
const smollm2: [
  name: string,
  dtype: string,
  shape: number[],
  sum: number,
  squares: number,
  first: number,
  last: number,
][] = [
  [
    'token_embd.weight',
    'Q8_0',
    [49152, 576],
    -15353.04449415207,
    520415.71544763993,
    -0.10654449462890625,
    -0.0417022705078125,
  ],
  [
    'blk.0.attn_q.weight',
    'Q4_1',
    [576, 576],
    59.22322082519531,
    26749.573275085306,
    -0.0963134765625,
    -0.255859375,
  ],
  [
    'blk.17.ffn_down.weight',
    'Q4_1',
    [576, 1536],
    114.11135864257812,
    31966.085642735474,
    -0.0387115478515625,
    -0.08062744140625,
  ],
  [
    'blk.29.attn_k.weight',
    'Q4_1',
    [192, 576],
    87.89241790771484,
    1902.811550046259,
    0.062408447265625,
    0.081939697265625,
  ],
  ['output_norm.weight', 'F32', [576], 1038.33203125, 1921.7355499267578, 1.7578125, 1.984375],
]
testWithShared('the tensors of a real file have the values that the Python package gguf reads', async (t) => {
  const name = sharedPath('models', 'smollm2-135m-instruct', 'model-q4_1.gguf')
  const { tensors, metadata } = await readTensorFile(name)
  t.is(tensors.length, 272)
  t.is((metadata['tokenizer.ggml.tokens'] as string[]).length, 49152)
  for (const [tensor, dtype, shape, sum, squares, first, last] of smollm2) {
    const info = tensors.find((candidate) => candidate.name === tensor)!
    t.like(info, { dtype, shape })
    const values = (await readTensor(name, tensor)) as Float32Array
    t.deepEqual([values[0], values.at(-1)], [first, last], tensor)
    let total = 0
    let totalOfSquares = 0
    for (const value of values) {
      total += value
      totalOfSquares += value * value
    }
    t.true(Math.abs(total / sum - 1) < 1e-9, tensor)
    t.true(Math.abs(totalOfSquares / squares - 1) < 1e-9, tensor)
  }
})
