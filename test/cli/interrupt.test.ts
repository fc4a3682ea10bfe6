import { spawn } from 'node:child_process'
import test from 'ava'

const script = (body: string) => `
  import { onInterrupt } from './lib/cli/interrupt.ts'
  const interrupt = onInterrupt('saving')
  setInterval(() => {}, 1000)
  interrupt.signal.addEventListener('abort', () => { ${body} })
  console.log('ready')`

function start(body: string) {
  const child = spawn('node', ['--import=tsx', '--input-type=module', '-e', script(body)], { stdio: 'pipe' })
  const exited = new Promise<number | null>((resolve) => child.on('close', resolve))
  const ready = new Promise((resolve) => child.stdout.once('data', resolve))
  const told = new Promise<string>((resolve) => child.stderr.once('data', (data) => resolve(String(data))))
  return { child, exited, ready, told }
}

test('the first Ctrl-C aborts the signal and lets the command end by itself', async (t) => {
  const { child, exited, ready, told } = start('process.exit(7)')
  await ready
  child.kill('SIGINT')
  t.is((await told).trim(), 'saving')
  t.is(await exited, 7)
})

test('the second Ctrl-C leaves at once with 130', async (t) => {
  const { child, exited, ready, told } = start('')
  await ready
  child.kill('SIGINT')
  await told
  child.kill('SIGINT')
  t.is(await exited, 130)
})
