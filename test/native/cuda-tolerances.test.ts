/** Every family of CUDA kernels on the emulated device, against the CPU's kernels and a reference in doubles at once. */
import test from 'ava'
import { deviations } from '../../bench/cuda-tolerances.ts'
import { hasEmulated } from './devices.ts'

// f32 sums in another order; bf16 results that lie on the other side of a rounding, by 2^-8 of themselves.
const most = { f32: 1e-6, bf16: 2 ** -8 }

const run = hasEmulated ? test.serial : test.skip

run(
  "emulated CUDA: results of every family are the CPU's and the reference's, as far as rounding allows",
  async (t) => {
    const found = await deviations()
    t.true(new Set(found.map(({ family }) => family)).size >= 13)
    for (const { family, result, dtype, fromCpu, fromReference } of found) {
      t.true(fromCpu <= most[dtype], `${family}, ${dtype}: ${result} is ${fromCpu} from the CPU's`)
      t.true(
        !(fromReference > most[dtype]),
        `${family}, ${dtype}: ${result} is ${fromReference} from the reference`,
      )
    }
  },
)
