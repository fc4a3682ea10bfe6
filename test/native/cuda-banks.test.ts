/** Conflicts of shared-memory banks in the CUDA kernels, counted by the emulation from the addresses. */
import test, { type ExecutionContext } from 'ava'
import { loadEmulated } from '../../lib/native.ts'
import { emulated, hasEmulated } from './devices.ts'
import { elements, normal } from './reference.ts'

const { kernels } = emulated
const run = hasEmulated ? test.serial : test.skip

/**
 * Runs the kernels and fails at every source line whose accesses needed a bank twice. In f32 attention, the weights of
 * a warp go from fragments to rows of shared memory: 8 rows of 4 pairs can not all be in banks of their own when the
 * loads that follow, of which there are many more, are to be: each store takes two wavefronts, the number asserted.
 */
async function withoutConflicts(t: ExecutionContext, work: () => Promise<unknown>, twice?: RegExp) {
  const { emulation } = loadEmulated()
  emulation.takeBankTotals()
  emulation.countBanks(true)
  await work().finally(() => emulation.countBanks(false))
  const totals = Object.entries(emulation.takeBankTotals())
  t.true(totals.length > 0)
  for (const [place, { wavefronts, conflicts }] of totals) {
    const expected = twice?.test(place) ? wavefronts : 0
    t.is(conflicts, expected, `${place}: ${conflicts} wavefronts beyond ${wavefronts}`)
  }
}

for (const dtype of ['bf16', 'f32'] as const) {
  run(
    `matmul ${dtype}: no access to shared memory meets a bank twice, in any transpose and cut`,
    async (t) => {
      const [rows, inputs, outputs] = [70, 264, 136]
      const x = elements(normal(1, rows * inputs), dtype)
      const dy = elements(normal(2, rows * outputs), dtype)
      const weight = normal(3, outputs * inputs)
      const { emulation } = loadEmulated()
      await withoutConflicts(t, async () => {
        // Tiles of 128, 64, 32 and 16.
        for (const multiprocessors of [1, 4, 15, 132]) {
          emulation.setMultiprocessors(multiprocessors)
          await kernels.matmul({ x, weight, inputs })
          await kernels.matmulBackward({ dy, x, weight, inputs })
        }
        emulation.setMultiprocessors(0)
      })
    },
  )

  for (const headDim of [64, 128, 256]) {
    run(
      `attention ${dtype}, heads of ${headDim}: no access to shared memory meets a bank twice (f32 weights do), forward and backward`,
      async (t) => {
        const [heads, kvHeads, rows] = [3, 1, 75]
        const args = {
          q: elements(normal(1, rows * heads * headDim), dtype),
          k: elements(normal(2, rows * kvHeads * headDim), dtype),
          v: elements(normal(3, rows * kvHeads * headDim), dtype),
          offsets: Int32Array.of(0, rows),
          ...{ heads, kvHeads, headDim },
        }
        await withoutConflicts(
          t,
          async () => {
            const forward = await kernels.attention(args)
            const dout = elements(normal(4, args.q.length), dtype)
            await kernels.attentionBackward({ ...args, ...forward, dout })
          },
          dtype === 'f32' ? /^store attention_tile\.h/ : undefined,
        )
      },
    )
  }
}

run('sample and policyLoss: no access to shared memory meets a bank twice', async (t) => {
  const [rows, inputs, vocabulary] = [3, 16, 700]
  const logits = normal(1, rows * vocabulary)
  const positions = Int32Array.of(0, 1, 2)
  await withoutConflicts(t, async () => {
    await kernels.sample({ logits, vocabulary, positions })
    await kernels.logProbs({
      hidden: normal(2, rows * inputs),
      weight: normal(3, vocabulary * inputs),
      inputs,
      targets: positions,
    })
  })
})
