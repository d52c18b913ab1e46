"""How people ask to create things and put text in them: mkdir, touch, write and append.

Slots: {n} and {m} a new name, maybe with its place, {N} a bare new path, {t} a quoted text, {T} a text to the end.
"""

PHRASES: dict[str, dict[str, str]] = {
    "mkdir": {
        "do": """
            create a folder called {n}
            make a folder named {n}
            create a directory {n}
            make a new directory called {n}
            add a folder {n}
            set up a folder with the name {n}
            create a new folder and call it {n}
            make me a folder called {n}
            add a new directory named {n}
            make an empty folder {n}
            start a new folder named {n}
            mkdir {n}
            """,
        "ask": """
            can I have a folder called {n}
            could I get a new directory {n}
            is it possible to have a folder named {n}
            may I get a directory called {n}
            """,
        "say": """
            I need a folder called {n}
            there should be a folder named {n}
            I want a new directory {n}
            we need a directory called {n}
            I'd like a folder with the name {n}
            I'm missing a folder called {n}
            a folder {n} has to exist
            """,
        "terse": """
            mkdir {n}
            new folder {n}
            new dir {n}
            folder {n}
            folder called {n}
            add dir {n}
            """,
    },
    "mkdir_nested": {
        "do": """
            create the nested folders {N}
            create the folder path {N}, parents included
            make the directory {N} and any missing parents
            create {N} with all the folders in between
            make the whole folder chain {N}
            build the directory path {N}
            create the full path {N} as folders
            set up the nested directories {N}
            mkdir -p {N}
            make a folder path {N} in one go
            create all the folders in {N}
            """,
        "ask": """
            can I have the folder path {N}, with the parents made too
            could I get the nested folders {N}
            may I have all folders along {N}
            is it possible to get the whole folder chain {N} at once
            """,
        "say": """
            I need the nested folders {N}
            there should be a folder path {N}, all new
            we need the whole directory path {N}
            I want the folders {N}, one inside the other
            the folder chain {N} has to exist, parents too
            """,
        "terse": """
            mkdir -p {N}
            nested folders {N}
            new folder path {N}
            dirs {N} with parents
            folder chain {N}
            """,
    },
    "touch": {
        "do": """
            create an empty file called {n}
            create a file named {n}
            make a new file {n}
            add an empty file {n}
            make a blank file called {n}
            start a new file with the name {n}
            create {n} as an empty file
            set up an empty file named {n}
            make me a file called {n}
            add a new file named {n}
            put an empty file called {n} there
            touch {n}
            """,
        "ask": """
            can I have an empty file called {n}
            could I get a new file named {n}
            may I have a blank file {n}
            is it possible to get a file called {n}
            """,
        "say": """
            I need an empty file called {n}
            there should be a file named {n}
            I want a new blank file {n}
            we need a file with the name {n}
            I'd like an empty file {n}
            a file called {n} is missing, so I need one
            """,
        "terse": """
            touch {n}
            new file {n}
            empty file {n}
            file called {n}
            blank file {n}
            new empty file {n}
            """,
    },
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
    "mkdir_two": {
        "do": """
            create two folders, {n} and {m}
            make the folders {n} and {m}
            create a folder {n} and another one called {m}
            add directories named {n} and {m}
            set up folders for {n} and {m}
            make directories {n} and {m}
            """,
        "say": """
            I need two folders called {n} and {m}
            there should be folders named {n} and {m}
            """,
        "terse": """
            mkdir {n} {m}
            new folders {n} and {m}
            two folders: {n}, {m}
            """,
    },
    "touch_two": {
        "do": """
            create two empty files, {n} and {m}
            make the files {n} and {m}
            create an empty file {n} and another one called {m}
            add empty files named {n} and {m}
            make blank files {n} and {m}
            """,
        "say": """
            I need two empty files called {n} and {m}
            there should be files named {n} and {m}
            """,
        "terse": """
            touch {n} {m}
            new files {n} and {m}
            two empty files: {n}, {m}
            """,
    },
    "mkdir_it": {
        "do": """
            create a subfolder {n} in it
            make a folder called {n} inside it
            add a directory {n} in there
            put a subfolder named {n} in it
            make a new folder {n} in there
            """,
    },
    "touch_it": {
        "do": """
            create an empty file {n} in it
            make a file called {n} inside it
            add a file named {n} in there
            put an empty file {n} in it
            start a new file {n} in there
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
