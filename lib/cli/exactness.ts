import type { DType, NativeAddon, NativeGenerateRequest, NativeModelConfig, NativePolicy } from '../native.ts'
import type { DeviceName } from '../policy/device.ts'

/** Two layers with the sizes of real models: their matrix products are where libraries change their order of sums. */
const shapes = [
  { hiddenSize: 576, intermediateSize: 1536, numHeads: 9, numKvHeads: 3 },
  { hiddenSize: 896, intermediateSize: 4864, numHeads: 14, numKvHeads: 2 },
]

/**
 * Samples from random weights in one mixed batch and scores each sequence alone: true when every log-prob and entropy
 * is the same, bit for bit.
 */
export async function exactnessSelfTest(
  native: NativeAddon,
  dtype: DType,
  device: DeviceName = 'cpu',
): Promise<boolean> {
  for (const shape of shapes) {
    const policy = await native.initializePolicy({
      config: configOf(shape),
      device,
      dtype,
      threads: native.environment().cores,
      seed: 1,
      standardDeviation: 0.05,
    })
    try {
      if (!policy.exact || !(await samplesEqualScores(policy))) return false
    } finally {
      policy.dispose()
    }
  }
  return true
}

function configOf(shape: (typeof shapes)[number]): NativeModelConfig {
  return {
    ...shape,
    architecture: 'LlamaForCausalLM',
    numLayers: 2,
    headDim: 64,
    vocabSize: 1024,
    maxPositions: 512,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: null,
    ropeFactors: null,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    tieWordEmbeddings: true,
  }
}

async function samplesEqualScores(policy: NativePolicy): Promise<boolean> {
  const requests = [1, 3, 31, 47, 123].map((length) => request(length))
  const completions = await policy.generate({
    requests,
    endTokens: new Int32Array(0),
    abort: null,
    onCompletion: null,
    onTokens: null,
  })
  for (const completion of completions) {
    const prompt = requests[completion.requestIndex]!.tokens
    const tokens = Int32Array.of(...prompt, ...completion.tokens)
    const scored = await policy.score(tokens, Int32Array.of(0, tokens.length), 1, null)
    const first = prompt.length - 1
    for (let index = 0; index < completion.tokens.length; index++) {
      if (scored.logProbs[first + index] !== completion.logProbs[index]) return false
      if (scored.entropies[first + index] !== completion.entropies[index]) return false
    }
  }
  return true
}

function request(length: number): NativeGenerateRequest {
  return {
    tokens: Int32Array.from({ length }, (_, index) => (index * 37 + length) % 1024),
    n: 3,
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    maxNewTokens: 8,
    seedHigh: 0,
    seedLow: length,
    firstSample: 0,
    ignoreEnd: true,
    stop: [],
  }
}
