// One command per line on stdin, one answer per line on stdout; commands run side by side.

import { createInterface } from 'node:readline';

export async function answerCommands(answer) {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    Promise.resolve()
      .then(() => answer(command))
      .catch((error) => ({ id: command.id, error: `${error?.message ?? error}` }))
      .then((given) => process.stdout.write(`${JSON.stringify(given)}\n`));
  }
  process.exit(0);
}
