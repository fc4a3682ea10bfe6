import { defaultOf, lookup, type SettingName, settingNames, type TrainerName } from '../training/config.ts'
import { flagOf } from './config-flags.ts'

/** docs/config.md, from the one table of settings. */
export function configDocument(): string {
  return `# Settings

Generated from the table in \`lib/training/config.ts\` by \`npm run docs:config\`; do not edit by hand.

A setting is a property of the trainer's options, a key of the file given with \`--config\`, and a flag. Flags win over the
file, and both over the defaults. Unknown names and combinations that make no sense are refused with
\`ERR_INVALID_CONFIG\`. Settings marked \\* may be given another value when a run is resumed; any other difference is refused.
Names and defaults follow TRL 1.x where it has them; the last column says where a default differs.

## SSRLTrainer, \`ssrl train\`

${table('ssrl')}

## SFTTrainer, \`ssrl sft\`

${table('sft')}
`
}

function table(trainer: TrainerName): string {
  const rows = settingNames(trainer).map((name) => row(name, trainer))
  return [
    '| setting | flag | values | default | meaning | beside TRL |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

function row(name: SettingName, trainer: TrainerName): string {
  const { kind, description, trl = '', free } = lookup(name)
  const value = defaultOf(name, trainer)
  const flag = value === true ? flagOf(name).replace('--', '--no-') : flagOf(name)
  const cells = [
    `\`${name}\`${free ? ' \\*' : ''}`,
    `\`${flag}\``,
    kind.expects,
    `\`${JSON.stringify(value)}\``,
    description,
    trl,
  ]
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}
