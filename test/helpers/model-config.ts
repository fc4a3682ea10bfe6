import type { ModelConfig } from '../../lib/policy/model-config.ts'

/** What the made-up models of tests have in common: a Llama without biases. Sizes are each test's own. */
export const plainLlama = {
  architecture: 'LlamaForCausalLM',
  rmsNormEps: 1e-5,
  rope: { theta: 10_000, scaling: null },
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  tieWordEmbeddings: true,
  initializerRange: 0.1,
  eosTokenIds: [],
} satisfies Partial<ModelConfig>
