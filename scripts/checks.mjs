// Every check of the repository, one after another; each counts, and so does each test.
// Arguments are handed to ava. The last line is `N passed, N failed, N skipped`.
import { spawn, spawnSync } from 'node:child_process'
import { createInterface } from 'node:readline'

const count = { passed: 0, failed: 0, skipped: 0 }

function report(outcome, title, detail = '') {
  count[outcome] += 1
  const mark = { passed: '✔', failed: '✖', skipped: '-' }[outcome]
  console.log(`  ${mark} ${title}${detail}`)
}

const bin = (name) => `node_modules/.bin/${name}`

function check(title, command, args) {
  const started = performance.now()
  const result = spawnSync(command, args, { encoding: 'utf8' })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  report(result.status === 0 ? 'passed' : 'failed', title, ` (${seconds} s)`)
  if (result.status !== 0) console.log(`${result.error ?? ''}${result.stdout ?? ''}${result.stderr ?? ''}`)
}

/** Built or not, the tests that need it look for themselves. */
function buildCuda(title, what) {
  const started = performance.now()
  const result = spawnSync(process.execPath, ['scripts/build-cuda.mjs', what], { encoding: 'utf8' })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  if (result.status === 3) return report('skipped', title, ` (skipped: ${result.stdout.trim()})`)
  report(result.status === 0 ? 'passed' : 'failed', title, ` (${seconds} s)`)
  if (result.status !== 0) console.log(result.stderr)
}

function checkNativeLayout() {
  const title = 'native sources are laid out by clang-format'
  if (spawnSync('clang-format', ['--version']).error)
    report('skipped', title, ' (skipped: there is no clang-format)')
  else check(title, 'bash', ['scripts/lint-native.sh'])
}

/** Reads ava's TAP stream line by line and shows it as a list. */
function showTap(stream, seen) {
  return new Promise((resolve) => {
    const lines = createInterface({ input: stream })
    lines.on('line', (line) => {
      const test = line.match(/^(not )?ok \d+ - (.*?)( # (SKIP|TODO).*)?$/)
      const total = line.match(/^# fail (\d+)$/)
      if (test) {
        const outcome = test[3] ? 'skipped' : test[1] ? 'failed' : 'passed'
        seen.tests += 1
        if (outcome === 'failed') seen.failed += 1
        report(outcome, test[2], outcome === 'skipped' ? ' (skipped)' : '')
      } else if (total) Object.assign(seen, { failTotal: Number(total[1]), finished: true })
      else if (!/^(TAP version|1\.\.|# (tests|pass|skip|todo) \d+$|$)/.test(line)) console.log(`  ${line}`)
    })
    lines.on('close', resolve)
  })
}

/** Tests that never came to an end, and an ava that never came to a test, are failures too. */
async function runTests(args) {
  const seen = { tests: 0, failed: 0, failTotal: 0, finished: false }
  const child = spawn(bin('ava'), ['--tap', ...args], { stdio: ['inherit', 'pipe', 'inherit'] })
  const exited = new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message))
    child.on('close', (status, signal) => resolve(signal ?? status))
  })
  await showTap(child.stdout, seen)
  const status = await exited
  for (let left = seen.failTotal - seen.failed; left > 0; left--)
    report('failed', 'a test that did not finish')
  if (seen.tests === 0) report('failed', `no test was run (ava ended with ${status})`)
  else if (status !== 0 && seen.failed === 0 && seen.failTotal === 0)
    report('failed', `ava ended with ${status}`)
}

console.log('checks')
// The addon itself was built, and loaded once, by the set-up before this.
report('passed', 'the addon is built and loads')
buildCuda('the CUDA kernels compile for the emulated device', 'emulated')
buildCuda('the CUDA kernels compile with sanitizers', 'sanitized')
buildCuda('the CUDA library compiles for sm_80 and sm_90', 'library')
check('the package builds', bin('tsc'), ['-p', 'tsconfig.build.json'])
check('types hold', bin('tsc'), ['-p', 'tsconfig.json', '--noEmit'])
check('TypeScript is formatted and linted', bin('biome'), ['check', '.'])
checkNativeLayout()

console.log('tests')
await runTests(process.argv.slice(2))

console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
process.exitCode = count.failed > 0 ? 1 : 0
