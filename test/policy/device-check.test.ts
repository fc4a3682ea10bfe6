import test from 'ava'
import { SsrlError } from '../../lib/index.ts'
import { refuseOthers } from '../../lib/policy/device-check.ts'

const expected = Float32Array.of(-1, -2, -3)

test("a device whose log-probs are near the CPU's is taken", (t) => {
  t.notThrows(() => refuseOthers('cuda:0', 'f32', Float32Array.of(-1.0005, -2, -3), expected))
  t.notThrows(() => refuseOthers('cuda:0', 'bf16', Float32Array.of(-1.05, -2, -3), expected))
})

test('a device whose log-probs are others, or no numbers, is ERR_NO_DEVICE and names the way out', (t) => {
  for (const wrong of [-2.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    const error = t.throws(() => refuseOthers('cuda:1', 'f32', Float32Array.of(-1, wrong, -3), expected), {
      instanceOf: SsrlError,
      message:
        /'cuda:1' in f32, but they differ by (0\.5|NaN|Infinity): take device 'cpu' \(SSRL_DEVICE=cpu\)/,
    })
    t.is((error as SsrlError).code, 'ERR_NO_DEVICE')
  }
})
