/** `npm run test:gpu`: what only a real device can show. */
import test from 'ava'
import { exactnessSelfTest } from '../../lib/cli/exactness.ts'
import { Policy, SsrlError } from '../../lib/index.ts'
import { loadNative } from '../../lib/native.ts'
import { plainLlama } from '../helpers/model-config.ts'

const run = process.env.SSRL_GPU === '1' ? test.serial : test.skip

for (const dtype of ['f32', 'bf16'] as const) {
  run(
    `CUDA: ${dtype}: samples of models with real sizes have the log-probs of score, bit for bit`,
    async (t) => {
      t.true(await exactnessSelfTest(loadNative(), dtype, 'cuda:0'))
    },
  )
}

run(
  'CUDA: a model that does not fit is ERR_OUT_OF_MEMORY with need and rest, and the process lives on',
  async (t) => {
    const config = {
      ...plainLlama,
      hiddenSize: 16384,
      intermediateSize: 65536,
      numLayers: 100,
      numHeads: 128,
      numKvHeads: 128,
      headDim: 128,
      vocabSize: 1024,
      maxPositions: 512,
      initializerRange: 0.02,
    } as const
    const tooLarge = Policy.initialize(config as never, { seed: 1, device: 'cuda:0' })
    const error = await t.throwsAsync(tooLarge, { instanceOf: SsrlError })
    t.is((error as SsrlError).code, 'ERR_OUT_OF_MEMORY')
    t.regex(error!.message, /Expected \d+ bytes on the device 'cuda:0' but \d+ of \d+ are free/)
    const small = {
      ...config,
      hiddenSize: 64,
      intermediateSize: 96,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 16,
    }
    await using policy = await Policy.initialize(small as never, { seed: 1, device: 'cuda:0' })
    t.is(
      (await policy.generate([{ tokens: Int32Array.of(1, 2), maxNewTokens: 2, ignoreEnd: true }])).length,
      1,
    )
  },
)
