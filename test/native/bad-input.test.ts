import test from 'ava'
import { kernels } from '../../lib/kernels.ts'

type Row = [title: string, kernel: keyof typeof kernels, args: unknown, message: RegExp]

const f = (count: number) => new Float32Array(count)
const i = (...values: number[]) => Int32Array.from(values)
const shape = { heads: 2, kvHeads: 1, headDim: 4 }
const attention = { q: f(16), k: f(8), v: f(8), offsets: i(0, 2), ...shape }
const paged = {
  q: f(8),
  keys: f(256),
  values: f(256),
  pages: i(0),
  pageOffsets: i(0, 1),
  queryOffsets: i(0, 1),
  positions: i(63),
  ...shape,
}
const head = { type: 'sft', hidden: f(6), weight: f(15), inputs: 3, targets: i(0, 4) }
const adamw = {
  weight: f(3),
  gradient: f(3),
  firstMoment: f(3),
  secondMoment: f(3),
  learningRate: 1,
  step: 1,
}
const rope = { x: f(8), positions: i(0), cosines: f(4), sines: f(4), heads: 2, headDim: 4 }
const sample = { logits: f(6), vocabulary: 3 }

const rows: Row[] = [
  ['no arguments', 'matmul', undefined, /Float32Array/],
  ['null for arguments', 'globalNorm', null, /object of arguments/],
  [
    'an array of numbers',
    'matmul',
    { x: [1, 2], weight: f(2), inputs: 1 },
    /Expected a Float32Array.* for x but received an array/,
  ],
  [
    'a Float64Array',
    'rmsNorm',
    { x: new Float64Array(3), weight: f(3), epsilon: 0 },
    /received Float64Array/,
  ],
  ['a DataView', 'rmsNorm', { x: new DataView(new ArrayBuffer(8)), weight: f(3), epsilon: 0 }, /for x/],
  ['inputs of 0', 'matmul', { x: f(2), weight: f(2), inputs: 0 }, /whole number from 1/],
  ['inputs that are no whole number', 'matmul', { x: f(2), weight: f(2), inputs: 1.5 }, /received 1.5/],
  [
    'a ragged x',
    'matmul',
    { x: f(5), weight: f(4), inputs: 2 },
    /length of x to be a multiple of 2 but received 5/,
  ],
  [
    'a bias of the wrong length',
    'matmul',
    { x: f(4), weight: f(4), inputs: 2, bias: f(3) },
    /Expected 2 values \[outputs\] for bias but received 3/,
  ],
  [
    'an unknown output type',
    'matmul',
    { x: f(4), weight: f(4), inputs: 2, outputType: 'f16' },
    /'f32' or 'bf16'/,
  ],
  [
    'a bf16 result of an f32 product',
    'matmul',
    { x: f(4), weight: f(4), inputs: 2, outputType: 'bf16' },
    /outputType/,
  ],
  [
    'gradients of another type',
    'matmulBackward',
    { dy: new Uint16Array(4), x: f(4), weight: f(4), inputs: 2 },
    /dy/,
  ],
  ['an empty norm weight', 'rmsNorm', { x: f(4), weight: f(0), epsilon: 0 }, /weight/],
  ['a NaN epsilon', 'rmsNorm', { x: f(4), weight: f(4), epsilon: Number.NaN }, /epsilon but received NaN/],
  ['a missing epsilon', 'rmsNorm', { x: f(4), weight: f(4) }, /epsilon but received undefined/],
  ['a negative epsilon', 'rmsNorm', { x: f(4), weight: f(4), epsilon: -1 }, /epsilon/],
  [
    'too few inverse norms',
    'rmsNormBackward',
    { dy: f(4), x: f(4), weight: f(2), inverseRms: f(1) },
    /inverseRms/,
  ],
  [
    'a position past the tables',
    'rope',
    { ...rope, positions: i(2) },
    /from 0 to 1 in positions but received 2/,
  ],
  ['a negative position', 'rope', { ...rope, positions: i(-1) }, /positions/],
  ['an odd head size', 'rope', { ...rope, headDim: 3 }, /even headDim/],
  ['sines that do not match', 'ropeBackward', { ...rope, sines: f(2) }, /sines/],
  ['a width of NaN', 'swiglu', { gateUp: f(4), width: Number.NaN }, /width but received NaN/],
  ['half a gate', 'swiglu', { gateUp: f(5), width: 2 }, /multiple of 4/],
  ['dy of the wrong length', 'swigluBackward', { gateUp: f(4), width: 2, dy: f(3) }, /dy/],
  [
    'an id out of range',
    'embedding',
    { ids: i(0, 3), table: f(6), width: 2 },
    /in ids but received 3 at index 1/,
  ],
  ['ids that are floats', 'embedding', { ids: f(2), table: f(6), width: 2 }, /Int32Array/],
  ['a negative id', 'embeddingBackward', { ids: i(-1), dx: f(2), width: 2, vocabulary: 3 }, /ids/],
  [
    'a vocabulary beyond memory',
    'embeddingBackward',
    { ids: i(), dx: f(0), width: 2 ** 20, vocabulary: 2 ** 31 },
    /2\^40/,
  ],
  ['heads that kvHeads does not divide', 'attention', { ...attention, kvHeads: 3 }, /multiple of kvHeads/],
  ['a head size above 256', 'attention', { ...attention, headDim: 258 }, /from 2 to 256/],
  ['a missing head size', 'attention', { ...attention, headDim: undefined }, /headDim/],
  ['a scale of infinity', 'attention', { ...attention, scale: Number.POSITIVE_INFINITY }, /scale/],
  ['keys of another type', 'attention', { ...attention, k: new Uint16Array(8) }, /k to have the type/],
  ['offsets that fall', 'attention', { ...attention, offsets: i(0, 2, 1, 2) }, /offsets to go from 0 to 2/],
  ['offsets past the rows', 'attention', { ...attention, offsets: i(0, 3) }, /offsets/],
  ['no offsets', 'attention', { ...attention, offsets: i() }, /offsets/],
  ['too few positions', 'attention', { ...attention, positions: i() }, /\[sequences\] for positions/],
  [
    'more shared keys than there are before',
    'attentionBackward',
    { ...attention, offsets: i(0, 1, 2), positions: i(0, 2) },
    /position from 0 to 1, .* in sequence 1 but received 2/,
  ],
  ['too few keys', 'attention', { ...attention, k: f(4) }, /\[rows, kvHeads, headDim\] for k/],
  ['a missing dout', 'attentionBackward', { ...attention, out: f(16), logSumExp: f(4) }, /dout/],
  ['a page that is not there', 'pagedAttention', { ...paged, pages: i(1) }, /pages/],
  ['a position past the pages', 'pagedAttention', { ...paged, positions: i(64) }, /sequence 0/],
  ['a negative position in pages', 'pagedAttention', { ...paged, positions: i(-1) }, /sequence 0/],
  ['half a page', 'pagedAttention', { ...paged, keys: f(100) }, /keys/],
  ['a NaN temperature', 'sample', { ...sample, temperature: Number.NaN }, /temperature/],
  ['a negative temperature', 'sample', { ...sample, temperature: -1 }, /temperature/],
  ['a topP of 0', 'sample', { ...sample, topP: 0 }, /topP/],
  ['a topP of NaN in one row', 'sample', { ...sample, topP: Float32Array.of(1, Number.NaN) }, /topP.*row 1/],
  ['a minP above 1', 'sample', { ...sample, minP: 1.5 }, /minP/],
  ['a negative topK', 'sample', { ...sample, topK: -1 }, /topK/],
  ['a topK that is no whole number', 'sample', { ...sample, topK: 1.5 }, /topKs/],
  ['a negative seed', 'sample', { ...sample, seed: -1 }, /seeds/],
  ['logits that are no rows', 'sample', { logits: f(7), vocabulary: 3 }, /multiple of 3/],
  ['too few positions', 'sample', { ...sample, positions: i(1) }, /positions/],
  ['a target outside the vocabulary', 'policyLoss', { ...head, targets: i(0, 5) }, /from 0 to 4 in targets/],
  ['an unknown loss', 'policyLoss', { ...head, type: 'ppo' }, /'sft' or 'policy-gradient'/],
  ['no advantages', 'policyLoss', { ...head, type: 'policy-gradient' }, /advantages/],
  [
    'beta without a reference',
    'policyLoss',
    { ...head, type: 'policy-gradient', advantages: f(2), beta: 1 },
    /referenceLogProbs/,
  ],
  ['a dual clip below 1', 'policyLoss', { ...head, dualClip: 0.5 }, /dualClip/],
  ['a temperature of 0 in the loss', 'policyLoss', { ...head, temperature: 0 }, /temperature/],
  ['weights of the wrong length', 'policyLoss', { ...head, weights: f(3) }, /weights/],
  ['a NaN temperature in log-probs', 'logProbs', { ...head, temperature: Number.NaN }, /temperature/],
  ['a step of 0', 'adamw', { ...adamw, step: 0 }, /step/],
  ['a learning rate of NaN', 'adamw', { ...adamw, learningRate: Number.NaN }, /learningRate/],
  ['a beta of 1', 'adamw', { ...adamw, beta1: 1 }, /beta1/],
  ['moments of another length', 'adamw', { ...adamw, secondMoment: f(2) }, /secondMoment/],
  ['gradients in no array', 'globalNorm', { gradients: f(3) }, /array of Float32Arrays/],
  ['a gradient that is no array', 'globalNorm', { gradients: [f(3), 7] }, /gradients but received 7/],
]

for (const [title, kernel, args, message] of rows) {
  test(`kernels.${kernel}: ${title} is ERR_INVALID_ARG`, async (t) => {
    const call = kernels[kernel] as (args: unknown) => Promise<unknown>
    await t.throwsAsync(() => call(args), { code: 'ERR_INVALID_ARG', message, name: 'SsrlError' })
  })
}

test('kernels: an unknown device is ERR_NO_DEVICE, a bad number of threads ERR_INVALID_ARG', async (t) => {
  const args = { x: f(4), weight: f(4), inputs: 2 }
  await t.throwsAsync(kernels.matmul(args, { device: 'tpu' as 'cpu' }), {
    code: 'ERR_NO_DEVICE',
    message: /'tpu'/,
  })
  for (const threads of [0, -1, 1.5, Number.NaN]) {
    await t.throwsAsync(kernels.matmul(args, { threads }), { code: 'ERR_INVALID_ARG', message: /threads/ })
  }
})

test('kernels: arguments may change or be detached while the work runs', async (t) => {
  const x = new Float32Array(64 * 512).fill(1)
  const weight = new Float32Array(512 * 512).fill(1)
  const promise = kernels.matmul({ x, weight, inputs: 512 })
  x.fill(5)
  structuredClone(weight, { transfer: [weight.buffer] })
  const { y } = await promise
  t.true((y as Float32Array).every((value) => value === 512))
})

test.serial(
  'kernels: what does not fit SSRL_MEMORY is ERR_OUT_OF_MEMORY with both numbers, and all is well afterwards',
  async (t) => {
    const before = process.env.SSRL_MEMORY
    t.teardown(() => {
      if (before === undefined) delete process.env.SSRL_MEMORY
      else process.env.SSRL_MEMORY = before
    })
    process.env.SSRL_MEMORY = '64MB'
    const args = { ids: i(0), dx: f(1024), width: 1024, vocabulary: 100_000 }
    await t.throwsAsync(kernels.embeddingBackward(args), {
      code: 'ERR_OUT_OF_MEMORY',
      message: /Needed 409\.6 MB of memory but only 6\d\.\d MB are free/,
    })
    process.env.SSRL_MEMORY = 'plenty'
    await t.throwsAsync(kernels.globalNorm({ gradients: [f(2)] }), {
      code: 'ERR_INVALID_ARG',
      message: /SSRL_MEMORY.*plenty/,
    })
    delete process.env.SSRL_MEMORY
    t.is(await kernels.globalNorm({ gradients: [Float32Array.of(3, 4)] }), 5)
  },
)
