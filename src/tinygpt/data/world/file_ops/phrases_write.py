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
            """,
        "ask": """
            can I have a file {n} that says {t}
            could I get a new file {n} with {t} in it
            may I have the text {t} saved as {n}
            """,
        "say": """
            I need a file called {n} with the text {t}
            there should be a file {n} that says {t}
            I want {t} saved in a new file {n}
            a new file {n} should contain {t}
            we need a file named {n} with {t} inside
            """,
        "terse": """
            echo {t} > {n}
            new file {n}: {t}
            write {t} to {n}
            save {t} as {n}
            {n} with {t} in it
            """,
        "tail": """
            create {n} with this text: {T}
            new file {n}: {T}
            save this as {n}: {T}
            write this to a new file called {n}: {T}
            make a file {n} that says: {T}
            """,
    },
    "write_it": {
        "do": """
            write {t} in it
            put {t} into it
            put the text {t} in it
            make it say {t}
            write the line {t} into that file
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
            """,
        "ask": """
            can the contents of {f} be replaced by {t}
            could {f} just say {t} instead
            is it possible to have only {t} in {f}
            """,
        "say": """
            I want {f} to say just {t}
            the old text of {f} should be replaced with {t}
            {f} should contain nothing but {t}
            I need {f} overwritten with {t}
            all that {f} should say is {t}
            """,
        "terse": """
            overwrite {f} with {t}
            replace text of {f} with {t}
            {f} should only say {t}
            contents of {f} become {t}
            """,
        "tail": """
            replace the contents of {f} with this: {T}
            overwrite {f} with: {T}
            make {f} say only this: {T}
            new contents for {f}: {T}
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
            """,
        "ask": """
            can {t} go at the end of {f}
            could {f} get one more line, {t}
            can we have {t} as the last line of {f}
            """,
        "say": """
            I want {t} added to {f}
            {f} needs one more line: {t}
            {t} should go at the end of {f}
            I need the line {t} at the bottom of {f}
            {f} is missing a last line, {t}
            """,
        "terse": """
            echo {t} >> {f}
            append {t} to {f}
            add to {f}: {t}
            {f} += {t}
            one more line in {f}: {t}
            """,
        "tail": """
            add this to {f}: {T}
            append to {f}: {T}
            put this at the end of {f}: {T}
            one more line for {f}: {T}
            """,
    },
    "append_it": {
        "do": """
            add {t} to it
            append {t} to it
            add the line {t} at its end
            put {t} at the bottom of it
            tack {t} onto the end of it
            """,
    },
}
