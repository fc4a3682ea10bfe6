import { spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import type { Failure, FullDiskFacts } from '../helpers/full-disk-run.ts'

const mountPoint = await mkdtemp(path.join(os.tmpdir(), 'ssrl-full-disk-'))

/** A mount namespace of its own, as the user (who is root in it) or as root. */
const namespaces = [
  ['unshare', '--user', '--map-root-user', '--mount'],
  ['unshare', '--mount'],
]

function onSmallDisk(namespace: readonly string[], command: string): string[] {
  return [...namespace, 'sh', '-c', `mount -t tmpfs -o size=64m tmpfs "$0" && ${command}`, mountPoint]
}

const namespace = namespaces.find((candidate) => {
  const [program, ...rest] = onSmallDisk(candidate, 'true')
  return spawnSync(program!, rest).status === 0
})

let facts: FullDiskFacts

test.before(async () => {
  if (namespace === undefined) return
  const run = 'exec node --import=tsx test/helpers/full-disk-run.ts "$0"'
  const [program, ...rest] = onSmallDisk(namespace, run)
  const { stdout } = await execa(program!, rest, { env: { SSRL_THREADS: '1' }, timeout: 300_000 })
  facts = JSON.parse(stdout)
})

test.after.always(() => rm(mountPoint, { recursive: true, force: true }))

const onFullDisk = namespace === undefined ? test.skip : test
const suffix = namespace === undefined ? ' (mounting a file system is not possible here)' : ''

const isNoSpace = ({ name, code, message }: Failure, expected: string) =>
  name === 'SsrlError' && code === expected && /no space left on (the )?device/i.test(message)

for (const kind of ['ssrl', 'sft'] as const) {
  onFullDisk(`a checkpoint that a full disk has no room for is ERR_CHECKPOINT: ${kind}${suffix}`, (t) => {
    const { checkpointFailure, saveFailures } = facts[kind]
    for (const failure of [checkpointFailure, ...Object.values(saveFailures)]) {
      t.true(isNoSpace(failure, 'ERR_CHECKPOINT'), JSON.stringify(failure))
    }
    t.is(Object.keys(saveFailures).length, 4)
  })

  onFullDisk(`records that a full disk has no room for are ERR_IO: ${kind}${suffix}`, (t) => {
    const { recordFailure } = facts[kind]
    t.true(isNoSpace(recordFailure, 'ERR_IO'), JSON.stringify(recordFailure))
  })

  onFullDisk(
    `on a full disk the checkpoint before stays and loads, and nothing lies about: ${kind}${suffix}`,
    (t) => {
      t.deepEqual(facts[kind].kept, ['step-000001'])
      t.is(facts[kind].resumedAt, 1)
    },
  )

  onFullDisk(`once there is room the trainer goes on as if nothing had been: ${kind}${suffix}`, (t) => {
    const { steps, undisturbed, keptAtEnd, failedAt } = facts[kind]
    t.is(steps.length, 30)
    t.deepEqual(steps, undisturbed)
    const saved = undisturbed.map((_, index) => index + 1).filter((step) => step === 1 || step >= failedAt)
    t.deepEqual(
      keptAtEnd,
      saved.map((step) => `step-${String(step).padStart(6, '0')}`),
    )
  })
}

for (const [kind, what, name] of [
  ['save', 'policy.save', 'folder'],
  ['gguf', 'the GGUF export', 'policy.gguf'],
] as const) {
  onFullDisk(
    `${what} on a full disk is ERR_IO, leaves what was there, and works once there is room${suffix}`,
    (t) => {
      const { failures, left, loads, after } = facts[kind]
      t.is(Object.keys(failures).length, 3)
      for (const failure of Object.values(failures))
        t.true(isNoSpace(failure, 'ERR_IO'), JSON.stringify(failure))
      t.deepEqual(left, [name])
      t.true(loads)
      t.true(after)
    },
  )
}

onFullDisk(`a record that fits a full disk only in part leaves no half line behind${suffix}`, (t) => {
  t.true(isNoSpace(facts.lines.failure, 'ERR_IO'))
  t.deepEqual(facts.lines.records, [{ step: 1 }, { step: 3 }])
})
