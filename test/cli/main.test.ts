import { spawn } from 'node:child_process'
import test from 'ava'
import { execa } from 'execa'

const main = ['--import=tsx', 'lib/cli/main.ts']
const ssrl = (...args: string[]) =>
  execa('node', [...main, ...args], { reject: false, env: { NO_COLOR: '1' } })

test('--help lists the commands and the environment on stdout and exits 0', async (t) => {
  const result = await ssrl('--help')
  t.is(result.exitCode, 0)
  t.regex(result.stdout, /Usage: ssrl/)
  t.regex(result.stdout, /^ {2}doctor /m)
  t.regex(result.stdout, /SSRL_MEMORY/)
  t.is(result.stderr, '')
})

test('each listed command shows its own help and takes --verbose', async (t) => {
  const { stdout } = await ssrl('--help')
  const listed = stdout.split('Commands:')[1]!.split('Environment:')[0]!
  const names = [...listed.matchAll(/^ {2}(\w+) /gm)]
    .map((match) => match[1]!)
    .filter((name) => name !== 'help')
  t.true(names.length > 0)
  for (const name of names) {
    const result = await ssrl(name, '--help')
    t.is(result.exitCode, 0, name)
    t.regex(result.stdout, new RegExp(`^Usage: ssrl ${name} `), name)
    t.regex(result.stdout, /--verbose/, name)
  }
})

test('--version prints the version of the package', async (t) => {
  const { stdout, exitCode } = await ssrl('--version')
  t.is(exitCode, 0)
  t.regex(stdout, /^\d+\.\d+\.\d+$/)
})

test('no command at all is wrong usage: help on stderr, exit code 2', async (t) => {
  const result = await ssrl()
  t.is(result.exitCode, 2)
  t.is(result.stdout, '')
  t.regex(result.stderr, /Usage: ssrl/)
})

test('an unknown command exits 2 and suggests the nearest one', async (t) => {
  const result = await ssrl('docter')
  t.is(result.exitCode, 2)
  t.regex(result.stderr, /unknown command 'docter'[\s\S]*Did you mean doctor/)
})

test('an unknown option exits 2 and names it', async (t) => {
  const result = await ssrl('doctor', '--jsom')
  t.is(result.exitCode, 2)
  t.regex(result.stderr, /unknown option '--jsom'[\s\S]*Did you mean --json/)
})

test('a reader that closes the pipe early ends the command without a message', async (t) => {
  const child = spawn('node', [...main, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    complaint += text
  })
  const status = await new Promise((resolve) => child.on('close', resolve))
  t.is(complaint, '')
  t.is(status, 0)
})

test('a failure is one message with its code and exits 1; --verbose adds the stack', async (t) => {
  const brief = await ssrl('score', '--data', 'missing.jsonl')
  t.is(brief.exitCode, 1)
  t.is(brief.stdout, '')
  t.regex(brief.stderr, /^error ERR_[A-Z_]+: [^\n]*missing\.jsonl[^\n]*$/)
  const verbose = await ssrl('score', '--data', 'missing.jsonl', '--verbose')
  t.is(verbose.exitCode, 1)
  t.regex(verbose.stderr, /^error ERR_[A-Z_]+: [\s\S]*\n {4}at /)
})

test('settings that are out of range are wrong usage', async (t) => {
  const result = await ssrl('train', '--policy', 'p', '--train', 'q', '--temperature', '0')
  t.is(result.exitCode, 2)
  t.regex(result.stderr, /^error ERR_INVALID_CONFIG: .*temperature/)
})
