// The official client in a page of a browser: `answer` takes a command and gives its answer.

import * as sdk from '@powersync/web';
import { answerWith } from './device.mjs';

window.answer = answerWith(sdk, ({ schema, logger, file }) => new sdk.PowerSyncDatabase({ schema, logger, database: { dbFilename: file } }));
