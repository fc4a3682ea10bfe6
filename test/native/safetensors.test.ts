import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { SsrlError } from '../../lib/errors.ts'
import { loadNative } from '../../lib/native.ts'
import { runNative } from '../../lib/native-call.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const { readTensorFile, readTensor, writeTensorFile } = loadNative()
let folder: string
let counter = 0
const fresh = () => path.join(folder, `${counter++}.safetensors`)
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-safetensors-'))
})
test.after.always(() => rm(folder, { recursive: true }))

/** A file with this header (an object or JSON text) and as many bytes of data. */
async function file(header: unknown, dataBytes: number, headerLength?: bigint): Promise<string> {
  const text = typeof header === 'string' || Buffer.isBuffer(header)
  const json = Buffer.from((text ? header : JSON.stringify(header)) as string)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(headerLength ?? BigInt(json.length))
  const name = fresh()
  await writeFile(name, Buffer.concat([length, json, Buffer.alloc(dataBytes, 1)]))
  return name
}

const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
})

test('what was written is read back: names, shapes, types, values, metadata', async (t) => {
  const name = fresh()
  const tensors = [
    { name: 'bytes', shape: [3], data: Uint8Array.of(1, 2, 255) },
    { name: 'floats', shape: [2, 3], data: Float32Array.of(1, -2, 0.1, Number.NaN, Infinity, -0) },
    { name: 'ä"\\\n', shape: [], data: Int32Array.of(-5) },
    { name: 'empty', shape: [0, 4], data: new Float32Array(0) },
    { name: 'big', shape: [2], data: BigInt64Array.of(-1n, 2n ** 62n) },
    { name: 'doubles', shape: [1], data: Float64Array.of(0.1) },
  ]
  await writeTensorFile(name, tensors, { format: 'pt', __proto__x: 'ü' })
  const read = await readTensorFile(name)
  t.is(read.format, 'safetensors')
  t.deepEqual(read.metadata, { format: 'pt', __proto__x: 'ü' })
  t.deepEqual(read.tensors.map((tensor) => tensor.name).sort(), tensors.map((tensor) => tensor.name).sort())
  for (const { name: tensor, shape, data } of tensors) {
    t.deepEqual(read.tensors.find((info) => info.name === tensor)!.shape, shape)
    t.deepEqual(await readTensor(name, tensor), data)
  }
})

test('a metadata key called __proto__ is a key like others', async (t) => {
  const name = await file('{"__metadata__":{"__proto__":"x"}}', 0)
  const { metadata } = await readTensorFile(name)
  t.deepEqual(Object.entries(metadata), [['__proto__', 'x']])
})

test('every tensor is aligned to its elements, and the header to 8 bytes', async (t) => {
  const name = fresh()
  const tensors = [1, 2, 3].flatMap((n) => [
    { name: `u${n}`, shape: [n], data: new Uint8Array(n) },
    { name: `h${n}`, shape: [n], data: new Float32Array(n), dtype: 'F16' },
    { name: `f${n}`, shape: [n], data: new Float32Array(n) },
  ])
  await writeTensorFile(name, tensors, {})
  const bytes = await readFile(name)
  const headerBytes = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes))
  t.is(headerBytes % 8, 0)
  for (const { name: tensor } of tensors) {
    const size = { u: 1, h: 2, f: 4 }[tensor[0] as 'u' | 'h' | 'f']
    t.is(header[tensor].data_offsets[0] % size, 0, tensor)
  }
})

/** Round to nearest, ties to even, by comparing with the neighbours in double precision. */
function nearest(value: number, decode: (bits: number) => number): number {
  let best = 0
  for (let bits = 0; bits < 0x7f80; bits++) {
    const error = Math.abs(decode(bits) - Math.abs(value))
    const bestError = Math.abs(decode(best) - Math.abs(value))
    if (error < bestError || (error === bestError && bits % 2 === 0)) best = bits
  }
  return best | (Object.is(Math.sign(value), -1) ? 0x8000 : 0)
}

const decodeF16 = (bits: number) => {
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  if (exponent === 31) return mantissa ? Number.NaN : Infinity
  return exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25)
}
const decodeBf16 = (bits: number) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!

test('f32 becomes F16 and BF16 by rounding to nearest, ties to even', async (t) => {
  const values = Float32Array.of(
    ...[1, -1, 0.1, 1 / 3, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 65504, -65519.9],
    ...[
      2 ** -14,
      2 ** -14 - 2 ** -26,
      2 ** -24,
      2 ** -25,
      2 ** -25 + 2 ** -40,
      3 * 2 ** -25,
      5.9e-8,
      1e-30,
      1234.5678,
    ],
  )
  const name = fresh()
  await writeTensorFile(
    name,
    [
      { name: 'f16', shape: [values.length], data: values, dtype: 'F16' },
      { name: 'bf16', shape: [values.length], data: values, dtype: 'BF16' },
    ],
    {},
  )
  const f16 = (bits: number) => (bits < 0x7c00 ? decodeF16(bits) : Infinity)
  t.deepEqual(
    [...((await readTensor(name, 'f16')) as Uint16Array)],
    [...values].map((v) => nearest(v, f16)),
  )
  t.deepEqual(
    [...((await readTensor(name, 'bf16')) as Uint16Array)],
    [...values].map((v) => nearest(v, decodeBf16)),
  )
})

test('infinities and NaN stay what they are in F16 and BF16', async (t) => {
  const name = fresh()
  const data = Float32Array.of(Infinity, -Infinity, Number.NaN, -0)
  for (const dtype of ['F16', 'BF16']) {
    await writeTensorFile(name, [{ name: 'x', shape: [4], data, dtype }], {})
    const bits = (await readTensor(name, 'x')) as Uint16Array
    const decoded = [...bits].map((b) => (dtype === 'F16' ? decodeF16(b & 0x7fff) : decodeBf16(b & 0x7fff)))
    t.deepEqual(decoded, [Infinity, Infinity, Number.NaN, 0])
    t.deepEqual([bits[0]! >> 15, bits[1]! >> 15, bits[3]! >> 15], [0, 1, 1])
  }
})

test('a finite value that F16 cannot hold is ERR_INVALID_ARG, not infinity', async (t) => {
  const write = (value: number) =>
    runNative(() =>
      writeTensorFile(fresh(), [{ name: 'x', shape: [1], data: Float32Array.of(value), dtype: 'F16' }], {}),
    )
  await t.notThrowsAsync(write(65519))
  await t.throwsAsync(write(65520), { instanceOf: SsrlError, code: 'ERR_INVALID_ARG', message: /BF16/ })
})

const badHeaders: [title: string, header: unknown, dataBytes: number, message: RegExp, length?: bigint][] = [
  ['a header length of 2^63', {}, 0, /header length of 9223372036854775808/, 2n ** 63n],
  ['a header length of 2^64 - 1', {}, 0, /header length of 18446744073709551615/, 2n ** 64n - 1n],
  ['a header one byte longer than the file', { x: f32(0, 4) }, 4, /header length/, 1000n],
  ['a header of no bytes', '', 8, /does not begin with/],
  ['a header that is not JSON', '{"x": nonsense}', 0, /no valid JSON/],
  ['a header that is a list', '[]', 0, /does not begin with/],
  ['text after the header', '{} {}', 0, /no valid JSON/],
  [
    'invalid UTF-8',
    Buffer.concat([
      Buffer.from('{"'),
      Buffer.of(0xff),
      Buffer.from('":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    ]),
    0,
    /no valid JSON at character 3/,
  ],
  ['overlapping tensors', { x: f32(0, 8), y: f32(4, 12) }, 12, /overlaps/],
  ['two tensors at the same place', { x: f32(0, 8), y: f32(0, 8) }, 8, /overlaps/],
  ['a hole between tensors', { x: f32(0, 4), y: f32(8, 12) }, 12, /hole|belong to no tensor/],
  ['bytes after the last tensor', { x: f32(0, 4) }, 8, /end with the file/],
  ['a tensor outside the file', { x: f32(0, 400) }, 4, /outside/],
  [
    'offsets near 2^64',
    `{"x":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}}`,
    4,
    /2\^64|outside/,
  ],
  ['offsets in reverse', { x: { dtype: 'F32', shape: [1], data_offsets: [4, 0] } }, 4, /data_offsets 4 to 0/],
  ['shape and bytes that differ', { x: f32(0, 8, [3]) }, 8, /take 12 bytes/],
  ['a shape whose product overflows', { x: f32(0, 4, [2 ** 40, 2 ** 40]) }, 4, /2\^63/],
  [
    'a shape whose bytes overflow',
    `{"x":{"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]}}`,
    8,
    /2\^63/,
  ],
  ['a negative size', { x: f32(0, 4, [-1]) }, 4, /negative number/],
  ['a fractional size', { x: f32(0, 4, [1.5]) }, 4, /fraction/],
  [
    'a size that is text',
    { x: { dtype: 'F32', shape: ['1'], data_offsets: [0, 4] } },
    4,
    /a string where none/,
  ],
  ['three offsets', { x: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 4] } }, 4, /more than two/],
  ['one offset', { x: { dtype: 'F32', shape: [1], data_offsets: [0] } }, 4, /not exactly/],
  ['no dtype', { x: { shape: [1], data_offsets: [0, 4] } }, 4, /not exactly/],
  [
    'an unknown dtype',
    { x: { dtype: 'F12', shape: [1], data_offsets: [0, 4] } },
    4,
    /dtype F12 in the entry of x/,
  ],
  ['a GGUF dtype', { x: { dtype: 'Q8_0', shape: [32], data_offsets: [0, 34] } }, 34, /unknown dtype Q8_0/],
  ['an unknown field', { x: { ...f32(0, 4), offset: 3 } }, 4, /field offset/],
  ['a tensor that is null', { x: null }, 0, /null where none/],
  [
    'the same name twice',
    '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    0,
    /twice/,
  ],
  [
    'the same field twice',
    '{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    0,
    /repeated field dtype/,
  ],
  ['metadata that is a number', { __metadata__: { n: 1 } }, 0, /a number where none/],
  ['metadata twice', '{"__metadata__":{},"__metadata__":{}}', 0, /__metadata__ twice/],
  ['nesting 100,000 deep', `{"x":${'['.repeat(100_000)}`, 0, /a list where none/],
  ['objects 100,000 deep', `{"x":${'{"y":'.repeat(100_000)}`, 0, /field y|object/],
  ['100 dimensions', { x: { dtype: 'U8', shape: Array(100).fill(1), data_offsets: [0, 1] } }, 1, /64 sizes/],
]
for (const [title, header, dataBytes, message, length] of badHeaders) {
  test(`a file with ${title} is ERR_MODEL_FORMAT`, async (t) => {
    const name = await file(header, dataBytes, length)
    await t.throwsAsync(
      runNative(() => readTensorFile(name)),
      { instanceOf: SsrlError, code: 'ERR_MODEL_FORMAT', message },
    )
  })
}

test('a truncated file is ERR_MODEL_FORMAT, whatever is missing', async (t) => {
  const name = fresh()
  const tensors = [{ name: 'x', shape: [4], data: Float32Array.of(1, 2, 3, 4) }]
  await writeTensorFile(name, tensors, { format: 'pt' })
  const whole = await readFile(name)
  for (let length = 0; length < whole.length; length++) {
    await truncate(name, length)
    await t.throwsAsync(
      runNative(() => readTensorFile(name)),
      { code: 'ERR_MODEL_FORMAT' },
    )
    await writeFile(name, whole)
  }
})

test('a missing file, a folder and a device are ERR_IO', async (t) => {
  for (const name of [path.join(folder, 'nothing'), folder, '/dev/zero']) {
    await t.throwsAsync(
      runNative(() => readTensorFile(name)),
      { instanceOf: SsrlError, code: 'ERR_IO' },
    )
  }
})

test('wrong arguments are ERR_INVALID_ARG', async (t) => {
  const x = { name: 'x', shape: [1], data: Float32Array.of(1) }
  const write = writeTensorFile as (...args: unknown[]) => Promise<void>
  const calls: (() => Promise<unknown>)[] = [
    () => readTensorFile(undefined as unknown as string),
    () => readTensorFile('a\0b'),
    () => write(fresh(), [x], undefined),
    () => write(fresh(), [x], { n: 1 }),
    () => write(fresh(), {}, {}),
    () => write(fresh(), [null], {}),
    () => write(fresh(), [{ ...x, data: [1] }], {}),
    () => write(fresh(), [{ ...x, shape: [2] }], {}),
    () => write(fresh(), [{ ...x, shape: [-1] }], {}),
    () => write(fresh(), [{ ...x, shape: [2 ** 60, 2 ** 60] }], {}),
    () => write(fresh(), [{ ...x, dtype: 'Q4_0' }], {}),
    () => write(fresh(), [{ ...x, dtype: 'I32' }], {}),
    () => write(fresh(), [x, x], {}),
    () => write(fresh(), [{ ...x, name: '__metadata__' }], {}),
  ]
  for (const call of calls) {
    await t.throwsAsync(
      runNative(async () => call()),
      { instanceOf: SsrlError, code: 'ERR_INVALID_ARG' },
      String(call),
    )
  }
})

test('a tensor that is not in the file is ERR_INVALID_ARG with its name', async (t) => {
  const name = await file({ x: f32(0, 4) }, 4)
  await t.throwsAsync(
    runNative(() => readTensor(name, 'y')),
    { code: 'ERR_INVALID_ARG', message: /received y$/ },
  )
})

test('no space left on the device is ERR_IO in these words', async (t) => {
  if (process.platform !== 'linux') return t.pass()
  const data = new Float32Array(100_000)
  await t.throwsAsync(
    runNative(() => writeTensorFile('/dev/full', [{ name: 'x', shape: [100_000], data }], {})),
    { instanceOf: SsrlError, code: 'ERR_IO', message: /no space left on the device/ },
  )
})

test('a file with random bytes changed or cut off is read, or refused with a code', async (t) => {
  const name = fresh()
  const tensors = [
    { name: 'x', shape: [2, 3], data: new Float32Array(6) },
    { name: 'layer.1', shape: [4], data: new Uint16Array(4), dtype: 'BF16' },
  ]
  await writeTensorFile(name, tensors, { format: 'pt' })
  const whole = await readFile(name)
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

testWithShared('integers and floats of the reference fixtures are read', async (t) => {
  const name = sharedPath('fixtures', 'models', 'llama', 'reference.safetensors')
  const greedy = (await readTensor(name, 'greedy')) as Int32Array
  t.true(greedy instanceof Int32Array)
  t.is(greedy.length, 44)
  const { tensors } = await readTensorFile(name)
  t.deepEqual(tensors.find((tensor) => tensor.name === 'logprobs')!.shape, [4, 95])
})
