/** Before a CUDA device computes for the first time in a process, it must give the CPU's log-probs. */
import { SsrlError } from '../errors.ts'
import { type DType, loadNative, type NativeModelConfig } from '../native.ts'
import { runNative } from '../native-call.ts'
import type { DeviceName } from './device.ts'

/** A model so small that the check takes a fraction of a second; products, heads and rows of odd sizes. */
const config: NativeModelConfig = {
  ...{
    architecture: 'LlamaForCausalLM',
    hiddenSize: 96,
    intermediateSize: 136,
    numLayers: 2,
    vocabSize: 130,
  },
  ...{ numHeads: 3, numKvHeads: 1, headDim: 32, maxPositions: 128, rmsNormEps: 1e-5 },
  ...{ ropeTheta: 10000, ropeScaling: null, ropeFactors: null, qkNorm: false, tieWordEmbeddings: true },
  ...{ qkvBias: false, outputBias: false, mlpBias: false },
}
const length = 70

/** In bf16 the two round at different places. */
const tolerance: Record<DType, number> = { f32: 1e-3, bf16: 0.1 }

const checks = new Map<string, Promise<void>>()

/**
 * Compares a small random model's log-probs on the device with those on the CPU, once for each device and dtype in a
 * process.
 * @throws SsrlError ERR_NO_DEVICE where they differ
 */
export async function checkDevice(device: DeviceName, dtype: DType): Promise<void> {
  if (device === 'cpu') return
  const key = `${device} ${dtype}`
  const check = checks.get(key) ?? compareDevice(device, dtype)
  checks.set(key, check)
  try {
    await check
  } catch (error) {
    // What failed for lack of memory may not fail next time.
    checks.delete(key)
    throw error
  }
}

async function compareDevice(device: DeviceName, dtype: DType): Promise<void> {
  // A CPU without bf16 has f32 to compare with, whose log-probs are as near.
  const cpuType = loadNative().environment().bf16 ? dtype : 'f32'
  refuseOthers(device, dtype, await logProbsOn(device, dtype), await logProbsOn('cpu', cpuType))
}

async function logProbsOn(device: DeviceName, dtype: DType): Promise<Float32Array> {
  const native = loadNative()
  const threads = native.environment().cores
  const options = { config, device, dtype, threads, seed: 1, standardDeviation: 0.1 }
  const policy = await runNative(() => native.initializePolicy(options))
  try {
    const tokens = Int32Array.from({ length }, (_, i) => (i * 37 + (i % 5)) % config.vocabSize)
    return (await runNative(() => policy.score(tokens, Int32Array.of(0, length), 1, null))).logProbs
  } finally {
    policy.dispose()
  }
}

/** @throws SsrlError ERR_NO_DEVICE where the device's log-probs are no numbers, or too far from the CPU's */
export function refuseOthers(device: string, dtype: DType, got: Float32Array, expected: Float32Array): void {
  const differences = expected.map((value, i) => Math.abs(got[i]! - value))
  if (differences.every((difference) => difference <= tolerance[dtype])) return
  const largest = differences.reduce((most, each) => Math.max(most, each), 0)
  throw new SsrlError(
    'ERR_NO_DEVICE',
    `Expected the CPU's log-probs within ${tolerance[dtype]} of a small model on the device '${device}' in ${dtype}, but ` +
      `they differ by ${largest}: take device 'cpu' (SSRL_DEVICE=cpu), and tell what the device is`,
  )
}
