import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { execa } from 'execa'

/** A copy of what the scripts look at, and a PATH with nothing on it but the given stubs. */
async function machine(t: ExecutionContext, stubs: Record<string, string>) {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-setup-'))
  t.teardown(() => rm(folder, { recursive: true }))
  for (const name of ['scripts', 'native', 'CMakeLists.txt', 'package.json', 'package-lock.json']) {
    await cp(name, path.join(folder, name), { recursive: true })
  }
  await symlink(path.resolve('node_modules'), path.join(folder, 'node_modules'))
  const bin = path.join(folder, 'bin')
  await mkdir(bin)
  await symlink(process.execPath, path.join(bin, 'node'))
  for (const name of ['bash', 'dirname', 'env', 'cat']) {
    const { stdout } = await execa('bash', ['-c', `command -v ${name}`])
    await symlink(stdout, path.join(bin, name))
  }
  for (const [name, body] of Object.entries({ id: 'echo 0', ...stubs })) {
    await rm(path.join(bin, name), { force: true })
    await writeFile(path.join(bin, name), `#!/bin/bash\n${body}\n`)
    await chmod(path.join(bin, name), 0o755)
  }
  const run = (command: string, args: string[]) =>
    execa(command, args, {
      cwd: folder,
      env: { PATH: bin, INIT_CWD: folder },
      extendEnv: false,
      reject: false,
      all: true,
    })
  return { folder, run, setup: () => run(path.join(bin, 'bash'), ['scripts/setup.sh']) }
}

test('missing packages are installed by apt-get, after an update when the first try fails', async (t) => {
  const log = 'echo "$@" >> apt.log; if [ "$1" = update ]; then echo > updated; fi; [ -e updated ]'
  const { folder, setup } = await machine(t, { 'apt-get': log })
  const result = await setup()
  const calls = (await readFile(path.join(folder, 'apt.log'), 'utf8')).trim().split('\n')
  const install =
    'install -y --no-install-recommends cmake g++ make libdnnl-dev libhwy-dev nlohmann-json3-dev clang-format libboost-context-dev'
  t.deepEqual(calls, [install, 'update', install])
  // The stub installs nothing, so the addon can't be built: that is said, with what is missing.
  t.is(result.exitCode, 1)
  t.regex(result.all, /there is no cmake, no g\+\+, no make/)
})

test('sudo is used when there is one that needs no password', async (t) => {
  const { folder, setup } = await machine(t, {
    id: 'echo 1000',
    'apt-get': 'echo "apt-get $@" >> apt.log',
    sudo: 'echo "sudo $1" >> apt.log; [ "$1" = -n ] && exit 0; exec "$@"',
  })
  await setup()
  const calls = (await readFile(path.join(folder, 'apt.log'), 'utf8')).trim().split('\n')
  t.deepEqual(calls.slice(0, 2), ['sudo -n', 'sudo env'])
  t.regex(calls[2]!, /^apt-get install -y/)
})

test('without root and without sudo the command to type as root is printed', async (t) => {
  const { setup } = await machine(t, { id: 'echo 1000', 'apt-get': 'exit 100' })
  const { exitCode, all } = await setup()
  t.is(exitCode, 1)
  t.regex(all, /needs root.*As root: apt-get update && apt-get install -y cmake g\+\+ make libdnnl-dev/)
})

test('when apt-get fails, as it does offline, the failure is named and the command printed', async (t) => {
  const { setup } = await machine(t, { 'apt-get': 'echo "E: Temporary failure resolving"; exit 100' })
  const { exitCode, all } = await setup()
  t.is(exitCode, 1)
  t.regex(all, /Temporary failure resolving/)
  t.regex(
    all,
    /could not install cmake.*is the network there\?.*sudo sh -c 'apt-get update && apt-get install -y cmake/,
  )
})

for (const [manager, command] of [
  ['dnf', 'dnf install -y cmake gcc-c++ make onednn-devel'],
  ['pacman', 'pacman -S --needed cmake gcc make onednn'],
  ['brew', 'brew install cmake libomp onednn'],
] as const) {
  test(`where there is no apt-get but ${manager}, its command is printed, marked as untested`, async (t) => {
    const { setup } = await machine(t, { [manager]: 'exit 1' })
    const { exitCode, all } = await setup()
    t.is(exitCode, 1)
    t.true(all.includes(`${command}`), all)
    t.regex(all, /# untested/)
  })
}

test('a Node.js that is too old is named with the version that is needed', async (t) => {
  const { setup } = await machine(t, { node: '[ "$1" = --version ] && echo v18.20.0; exit 1' })
  const { exitCode, all } = await setup()
  t.is(exitCode, 1)
  t.regex(all, /Node\.js 20\.19 or newer is needed, this is v18\.20\.0/)
})

test("npm's install hook prints the one command that helps and does not fail the install", async (t) => {
  const { folder, run } = await machine(t, { 'apt-get': 'exit 1' })
  const inRepository = await run(process.execPath, ['scripts/install.mjs'])
  t.is(inRepository.exitCode, 0)
  t.regex(inRepository.all, /builds it: +npm run setup$/m)
  await rm(path.join(folder, 'package-lock.json'))
  const asDependency = await run(process.execPath, ['scripts/install.mjs'])
  t.is(asDependency.exitCode, 0)
  t.regex(asDependency.all, /builds it: +bash scripts\/setup\.sh$/m)
})

test('when all is there, set-up says so within seconds', async (t) => {
  await execa('bash', ['scripts/setup.sh'])
  const started = performance.now()
  const { exitCode, stderr } = await execa('bash', ['scripts/setup.sh'])
  t.is(exitCode, 0)
  t.is(stderr, 'setup: ready')
  t.true(performance.now() - started < 20_000)
})
