"""How people ask to put text in a file: write and append.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {n} a new name, {f} an existing file as people
mention it, {t} a quoted text, {T} a text up to the end.
"""

PHRASES: dict[str, dict[str, str]] = {
    "write_new": {
        "do": """
            create a file {n} with the text {t}
            create {n} and write {t} in it
            write {t} to a new file called {n}
            save {t} in a file named {n}
            make a file called {n} that says {t}
            put the text {t} into a new file {n}
            store {t} as {n}
            note {t} in a new file {n}
            make {n} with {t} as its content
            start a file {n} that contains {t}
            save the text {t} under the name {n}
            jot down {t} in a new file called {n}
            set up a file {n} that reads {t}
            generate a new file {n} containing {t}
            prepare a file named {n} holding the text {t}
            add a new file {n} with the words {t}
            record {t} in a new file named {n}
            type {t} into a new file called {n}
            keep the text {t} in a new file {n}
            drop {t} into a new file called {n}
            open a new file {n} and put {t} inside
            produce a file {n} with {t} as the text
            """,
        "ask": """
            can I have a file {n} that says {t}
            could I get a new file {n} with {t} in it
            may I have the text {t} saved as {n}
            could {t} be saved in a new file {n}
            can there be a new file {n} reading {t}
            is it possible to store {t} in a new file named {n}
            """,
        "say": """
            I need a file called {n} with the text {t}
            there should be a file {n} that says {t}
            I want {t} saved in a new file {n}
            a new file {n} should contain {t}
            we need a file named {n} with {t} inside
            I'd like the text {t} kept in a new file {n}
            {t} should be saved under the new name {n}
            I want a file {n} and it should read {t}
            what I need is a new file {n} containing {t}
            """,
        "terse": """
            echo {t} > {n}
            new file {n}: {t}
            write {t} to {n}
            save {t} as {n}
            {n} with {t} in it
            store {t} in new file {n}
            create {n}: {t}
            {t} into new file {n}
            new file {n} with text {t}
            """,
        "tail": """
            create {n} with this text: {T}
            new file {n}: {T}
            save this as {n}: {T}
            write this to a new file called {n}: {T}
            make a file {n} that says: {T}
            start a new file {n} with these words: {T}
            put the following in a new file {n}: {T}
            store this text as {n}: {T}
            I need a new file {n} that reads: {T}
            """,
    },
    "write_it": {
        "do": """
            write {t} in it
            put {t} into it
            put the text {t} in it
            make it say {t}
            write the line {t} into that file
            fill it with the text {t}
            save {t} in it
            set its text to {t}
            type {t} into it
            """,
    },
    "overwrite": {
        "do": """
            replace the contents of {f} with {t}
            overwrite {f} with {t}
            replace everything in {f} with {t}
            change the text of {f} to {t}
            set the contents of {f} to {t}
            rewrite {f} so it just says {t}
            make {f} say only {t}
            throw out what's in {f} and write {t} instead
            swap the text in {f} for {t}
            write {t} over the old text of {f}
            make {t} the only line in {f}
            set the text of {f} to {t}
            exchange the contents of {f} for {t}
            discard the old text of {f} and put {t} there
            erase the text in {f} and write {t} in its place
            wipe the contents of {f} and fill in {t}
            rewrite {f} to read only {t}
            put {t} in {f} in place of what's there now
            change {f} so that all it says is {t}
            scrap what {f} says and make it {t}
            substitute {t} for the whole text of {f}
            """,
        "ask": """
            can the contents of {f} be replaced by {t}
            could {f} just say {t} instead
            is it possible to have only {t} in {f}
            could everything in {f} be swapped for {t}
            can {f} be overwritten so it reads {t}
            could you make {t} the entire text of {f}
            """,
        "say": """
            I want {f} to say just {t}
            the old text of {f} should be replaced with {t}
            {f} should contain nothing but {t}
            I need {f} overwritten with {t}
            all that {f} should say is {t}
            {f} should read {t} and nothing else
            I'd like the whole text of {f} changed to {t}
            the contents of {f} are wrong, they should just be {t}
            what {f} says now should give way to {t}
            """,
        "terse": """
            overwrite {f} with {t}
            replace text of {f} with {t}
            {f} should only say {t}
            contents of {f} become {t}
            set {f} to just {t}
            {f}: old text out, {t} in
            rewrite {f} as {t}
            whole text of {f} = {t}
            """,
        "tail": """
            replace the contents of {f} with this: {T}
            overwrite {f} with: {T}
            make {f} say only this: {T}
            new contents for {f}: {T}
            rewrite {f} so that it only reads: {T}
            swap everything in {f} for this: {T}
            the whole text of {f} should be: {T}
            """,
    },
    "append": {
        "do": """
            add {t} to {f}
            append {t} to {f}
            add the line {t} to {f}
            add {t} at the end of {f}
            put {t} at the bottom of {f}
            write {t} at the end of {f}
            tack {t} onto the end of {f}
            add a line to {f} that says {t}
            extend {f} with the line {t}
            stick {t} on the end of {f}
            attach the text {t} to the end of {f}
            insert {t} at the end of {f}
            place {t} at the very end of {f}
            add {t} as a new last line in {f}
            continue {f} with the line {t}
            supplement {f} with one more line, {t}
            add one more line to the end of {f}, {t}
            finish {f} off with the extra line {t}
            include {t} as another line at the bottom of {f}
            let {f} end with the additional line {t}
            """,
        "ask": """
            can {t} go at the end of {f}
            could {f} get one more line, {t}
            can we have {t} as the last line of {f}
            could {t} be appended to {f}
            can you add one more line to {f} saying {t}
            could the line {t} be put below the rest of {f}
            """,
        "say": """
            I want {t} added to {f}
            {f} needs one more line: {t}
            {t} should go at the end of {f}
            I need the line {t} at the bottom of {f}
            {f} is missing a last line, {t}
            I'd like {f} extended by the line {t}
            {f} should get {t} as an additional last line
            after everything in {f} there should be one more line, {t}
            the line {t} still has to be added to {f}
            """,
        "terse": """
            echo {t} >> {f}
            append {t} to {f}
            add to {f}: {t}
            {f} += {t}
            one more line in {f}: {t}
            another line for {f}: {t}
            {t} at the end of {f}
            extra line for {f}: {t}
            end of {f}: add {t}
            """,
        "tail": """
            add this to {f}: {T}
            append to {f}: {T}
            put this at the end of {f}: {T}
            one more line for {f}: {T}
            tack this onto the end of {f}: {T}
            extend {f} with this line: {T}
            add one more line to {f}: {T}
            """,
    },
    "append_it": {
        "do": """
            add {t} to it
            append {t} to it
            add the line {t} at its end
            put {t} at the bottom of it
            tack {t} onto the end of it
            insert {t} at the end of it
            extend it with the line {t}
            add one more line to it, {t}
            write {t} below what it already says
            """,
    },
}
