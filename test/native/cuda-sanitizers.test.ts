/**
 * Every family of CUDA kernels on the emulated device, in programs that are built with sanitizers. To ThreadSanitizer a
 * CUDA thread is a thread, and only barriers and the ends of launches order two of them: it sees races in global memory,
 * within a block and between blocks, which the emulation itself does not look for.
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { execa } from 'execa'

const programs = { address: 'AddressSanitizer and UndefinedBehaviorSanitizer', thread: 'ThreadSanitizer' }
const pathOf = (program: string) =>
  fileURLToPath(new URL(`../../build/Release/ssrl-${program}-sanitized`, import.meta.url))

/** What a run of the program writes to stderr; a kernel with one mistake, or all families without. */
async function run(program: string, ...mistake: string[]) {
  const command = [pathOf(program), ...mistake]
  let result = await execa(command[0]!, mistake, { reject: false })
  // Older sanitizers know too few places where a kernel may put a program.
  if (/unexpected memory mapping/.test(result.stderr)) {
    result = await execa('setarch', ['-R', ...command], { reject: false })
  }
  const { exitCode, stderr, stdout } = result
  return { exitCode, stderr, stdout }
}

const mistakes: [program: keyof typeof programs, mistake: string, report: RegExp][] = [
  ['address', 'past device memory', /AddressSanitizer: use-after-poison/],
  ['address', 'past shared memory', /AddressSanitizer: heap-buffer-overflow/],
  [
    'address',
    'past an array',
    /runtime error: index 4 out of bounds|AddressSanitizer: stack-buffer-overflow/,
  ],
  ['address', 'overflow', /runtime error: signed integer overflow/],
  ['address', 'misaligned', /runtime error: load of misaligned address/],
  ['thread', 'race of threads', /ThreadSanitizer: data race/],
  ['thread', 'race despite a shuffle', /ThreadSanitizer: data race/],
  ['thread', 'race of blocks', /ThreadSanitizer: data race/],
]

for (const [program, name] of Object.entries(programs)) {
  if (!existsSync(pathOf(program))) {
    test.skip(`${name}: not built (node scripts/build-cuda.mjs sanitized says why)`, () => {})
    continue
  }

  test(`${name}: every family of CUDA kernels is right, and nothing is reported`, async (t) => {
    const { exitCode, stderr, stdout } = await run(program)
    t.deepEqual([exitCode, stderr, stdout], [0, '', 'every family of kernels is right'])
  })

  test(`${name}: a kernel without a mistake runs through`, async (t) => {
    const { exitCode, stderr } = await run(program, 'none')
    t.deepEqual([exitCode, stderr], [0, ''])
  })

  for (const [, mistake, report] of mistakes.filter(([by]) => by === program)) {
    test(`${name} reports: ${mistake}`, async (t) => {
      const { exitCode, stderr } = await run(program, mistake)
      t.not(exitCode, 0)
      t.regex(stderr, report)
    })
  }
}
