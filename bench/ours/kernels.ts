import { toBfloat16 } from '../../lib/bfloat16.ts'
import type { Elements } from '../../lib/kernels.ts'
import { loadNative } from '../../lib/native.ts'
import type { KernelWork, LimitWork, Result } from '../job.ts'
import { productsOf } from '../products.ts'
import { quantile } from '../statistics.ts'

type Partial = Omit<Result, 'peak' | 'version'>

interface Setting {
  dtype: string
  threads: number
  repeats: number
}

const milliseconds = 1000

/** A fixed pattern of small values: what is computed does not matter to the time. */
function floats(count: number): Float32Array {
  const values = new Float32Array(count)
  for (let i = 0; i < count; i++) values[i] = ((i * 2654435761) % 1000) / 5000 - 0.1
  return values
}

const elements = (count: number, dtype: string): Elements =>
  dtype === 'bf16' ? toBfloat16(floats(count)) : floats(count)

/** Seconds of each of `repeats` runs of one kernel, copies and packing aside. */
async function secondsOf(name: string, args: object, { threads, repeats }: Setting): Promise<number[]> {
  const device = process.env.SSRL_DEVICE ?? 'cpu'
  const { seconds } = await loadNative().kernels[name]!({ ...args, threads, device, repeat: repeats })
  return [...(seconds as Float64Array)]
}

export function kernel(work: KernelWork, setting: Setting): Promise<Partial> {
  const run = { matmul: products, attention, 'policy-loss': policyLoss, sampling }[work.kind]
  return run(work, setting)
}

/** Every matrix product of a forward pass over all layers' kinds, once: q/k/v, output, gate and up, down, vocabulary. */
async function products({ config, rows }: KernelWork, setting: Setting): Promise<Partial> {
  let total = 0
  for (const [inputs, outputs] of productsOf(config)) {
    const args = productArguments(inputs, outputs, rows, setting.dtype)
    total += quantile(await secondsOf('matmul', args, setting), 0.5)
  }
  return { values: [total * milliseconds] }
}

function productArguments(inputs: number, outputs: number, rows: number, dtype: string): object {
  return { x: elements(rows * inputs, dtype), weight: floats(outputs * inputs), inputs, outputType: dtype }
}

async function attention({ config, rows }: KernelWork, setting: Setting): Promise<Partial> {
  const { numHeads: heads, numKvHeads: kvHeads, headDim } = config
  const length = Math.ceil(rows / 4)
  const q = elements(4 * length * heads * headDim, setting.dtype)
  const kv = elements(4 * length * kvHeads * headDim, setting.dtype)
  const shape = { heads, kvHeads, headDim, scale: 1 / Math.sqrt(headDim) }
  const offsets = Int32Array.from([0, 1, 2, 3, 4], (i) => i * length)
  const forward = { ...shape, q, k: kv, v: kv, offsets, positions: new Int32Array(4) }
  const logSumExp = new Float32Array(4 * length * heads).fill(3)
  const backward = { ...forward, out: q, dout: q, logSumExp }
  const first = await secondsOf('attention', forward, setting)
  const second = await secondsOf('attentionBackward', backward, setting)
  return { values: first.map((seconds, i) => (seconds + second[i]!) * milliseconds) }
}

async function policyLoss({ config, rows }: KernelWork, setting: Setting): Promise<Partial> {
  const { hiddenSize: inputs, vocabSize } = config
  const args = {
    hidden: elements(rows * inputs, setting.dtype),
    weight: floats(vocabSize * inputs),
    inputs,
    ...policyGradient(rows, vocabSize),
  }
  return { values: (await secondsOf('policyLoss', args, setting)).map((seconds) => seconds * milliseconds) }
}

/** What the loss of a policy gradient takes beside hidden states and weights. */
export function policyGradient(rows: number, vocabulary: number) {
  return {
    targets: Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocabulary),
    type: 'policy-gradient',
    weights: new Float32Array(rows).fill(1 / rows),
    advantages: new Float32Array(rows).fill(1),
    temperature: 1,
    epsilon: 0.2,
    epsilonHigh: 0.2,
    dualClip: 0,
    beta: 0,
    klEstimator: 'k3',
    backward: true,
  }
}

async function sampling({ config, rows }: KernelWork, setting: Setting): Promise<Partial> {
  const args = {
    logits: floats(rows * config.vocabSize),
    vocabulary: config.vocabSize,
    temperatures: new Float32Array(rows).fill(1),
    topKs: new Int32Array(rows),
    topPs: new Float32Array(rows).fill(1),
    minPs: new Float32Array(rows),
    seeds: new BigUint64Array(rows),
    samples: new Int32Array(rows),
    positions: new Int32Array(rows),
  }
  return { values: (await secondsOf('sample', args, setting)).map((seconds) => seconds * milliseconds) }
}

/** The fastest call of each product at each number of rows. */
export async function limit({ products, rows }: LimitWork, setting: Setting): Promise<Partial> {
  const fastest: number[][] = []
  for (const count of rows) {
    const times: number[] = []
    for (const [inputs, outputs] of products) {
      const args = productArguments(inputs, outputs, count, setting.dtype)
      times.push(Math.min(...(await secondsOf('matmul', args, setting))))
    }
    fastest.push(times)
  }
  return { values: [], limit: fastest }
}
