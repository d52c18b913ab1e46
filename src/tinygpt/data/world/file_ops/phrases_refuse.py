"""Requests that no file tool can serve, by what they ask for, with the words of the refusal.

Each key completes "I can't ... here.". `do` fits after "please", `other` stands as it is.
Slots: {f} a file, {d} a directory, {w} a bare file name.
"""

REFUSALS: dict[str, dict[str, str]] = {
    "send email": {
        "do": """email {f} to my boss
            send {f} to Anna by mail
            mail {f} to the whole team
            forward {f} to the accountant
            shoot the landlord an email with {f}
            reply to Karin's last message
            attach {f} to a mail for the client
            cc the whole office on {f}""",
        "other": """can {f} go out as an attachment to Bob?
            I need {f} in Maria's inbox
            did anyone write to me this morning?
            how many unread mails do I have?""",
    },
    "check the weather": {
        "do": """tell me what the weather is like today
            check if I need an umbrella
            give me the forecast for the weekend
            look up how hot it gets on Sunday""",
        "other": """what's the weather in Lisbon?
            will it rain tomorrow?
            is it cold outside?
            do I need a jacket tonight?
            any snow expected in the mountains?
            what's the temperature right now?""",
    },
    "compress files": {
        "do": """zip {d}
            compress {f}
            pack {d} into an archive
            make a zip out of {f}
            shrink {f} so it takes up less space
            bundle {d} into a single .zip
            gzip {f}""",
        "other": """I need {d} as a tarball
            can {f} be squeezed into a zip file?
            {f} is too big, can it be compressed?""",
    },
    "unpack archives": {
        "do": """unzip the archive in {d}
            extract the tarball in {d}
            unpack the zip I saved in {d}
            decompress {f}""",
        "other": """what is packed inside the rar in {d}?""",
    },
    "change permissions": {
        "do": """chmod 600 {f}
            make {f} executable
            change the owner of {f} to root
            make {f} read-only
            give Peter write access to {d}
            hide {d} from other users""",
        "other": """nobody else should be allowed to open {f}
            who has write access to {f}?
            I can't open {f}, can you fix the permissions?
            am I allowed to edit {f}?""",
    },
    "print on paper": {
        "do": """send {f} to the office printer
            make two paper printouts of {f}
            print {f} on the laser printer in color
            print out ten handouts of {f} for the meeting""",
        "other": """I need {f} on paper, double sided
            why is the printer not working?""",
    },
    "translate": {
        "do": """translate {f} into French
            turn {f} into proper German
            put {f} into Italian for my grandmother
            translate the first paragraph of {f} to Japanese""",
        "other": """what would {f} be in Spanish?
            I need an English translation of {f}
            how do you say thank you in Polish?
            my colleague only reads Chinese, can {f} be translated for her?""",
    },
    "convert formats": {
        "do": """convert {f} to pdf
            turn {f} into a spreadsheet
            export {f} as a slide deck
            change {f} from csv to json
            transform {f} into an e-book""",
        "other": """can I have {f} as a proper Word document?
            {f} needs to be a pdf by noon
            could {f} become a web page?""",
    },
    "play media": {
        "do": """play some music
            put on a relaxing playlist
            play the song in {f}
            skip to the next song
            play the latest episode of that podcast""",
        "other": """can we listen to something nice?
            what's this song called?
            I feel like watching a film""",
    },
    "reach the internet": {
        "do": """download the latest release from the website
            upload {f} to the cloud
            fetch the page at example.com
            share {d} with a public link
            google the name of {w}
            sync {d} with my phone
            search the web for cheap flights
            open my browser and go to wikipedia
            post {f} to the company's web server""",
        "other": """what's on the news today?
            who won the match last night?
            I want {f} on my website
            is the website down again?
            how fast is my connection?""",
    },
    "run programs": {
        "do": """run {f}
            execute the script {w}
            compile {f}
            start the server in {d}
            launch the app in {d}
            install the packages listed in {f}
            start {w} and tell me what it prints
            build the project in {d}
            debug {f}""",
        "other": """does the code in {d} pass its tests?
            does {f} still compile?
            can {w} be run as a background job?""",
    },
    "use git": {
        "do": """commit {f}
            push {d} to github
            undo the last commit
            make a new branch for {w}
            clone the repository into {d}
            stash my changes in {d}
            merge the feature branch into main
            revert {f} to the last commit""",
        "other": """who changed {f} last?
            which branch is {d} on?""",
    },
    "do arithmetic": {
        "do": """calculate 15 percent of 240
            add up the numbers in {f}
            plot the numbers in {f}
            work out the square root of 1764
            divide 980 by 14
            convert 30 miles into kilometers""",
        "other": """what's 17 times 23?
            what's the average of the values in {f}?
            how much is 20 percent off 85 euros?
            what do the prices in {f} add up to?""",
    },
    "chat": {
        "do": """tell me a joke
            write me a poem about the sea
            recommend a good book
            tell me something interesting
            make me laugh
            keep me company for a while""",
        "other": """how are you today?
            what's the meaning of life?
            what's the capital of Norway?
            who are you?
            I'm bored, let's talk
            do you like your job?
            what should I cook tonight?
            good morning, did you sleep well?""",
    },
    "manage the calendar": {
        "do": """set an alarm for seven
            remind me to call the dentist
            add a meeting to my calendar for Monday
            book a table for two tonight
            cancel my appointment on Thursday
            move the team meeting to three o'clock
            wake me up at half past six
            set a timer for ten minutes
            block my Friday afternoon""",
        "other": """what's on my schedule this week?
            am I free on Wednesday?
            when is my next meeting?""",
    },
    "make calls": {
        "do": """call my sister
            text Omar that I'm late
            dial the number in {f}
            phone the doctor's office
            leave Tim a voicemail""",
        "other": """can you ring the front desk?
            did I miss any calls?""",
    },
    "encrypt files": {
        "do": """encrypt {f}
            put a password on {d}
            lock {f} with a secret key
            decrypt {f}
            scramble {f} so nobody can read it""",
        "other": """{f} should be protected by a password
            I want {d} locked with a passphrase""",
    },
    "restore deleted files": {
        "do": """bring back the file I deleted yesterday
            undo the last delete
            restore the previous version of {f}
            recover what I threw away this morning
            roll {f} back to how it was on Monday""",
        "other": """can I get last week's version of {f} back?
            I deleted the wrong thing, can you get it back?""",
    },
    "see dates or owners": {
        "do": """tell me when {f} was last changed
            check who owns {f}
            find out who made {f}
            list everything in {d} that changed this week""",
        "other": """when did I create {f}?
            which file here is the newest?
            how old is {f}?
            has anybody touched {f} since Monday?""",
    },
    "judge or rewrite texts": {
        "do": """fix the spelling in {f}
            summarize {f}
            sort the lines of {f}
            proofread {f}
            make {f} sound more friendly
            give me the gist of {f} in two sentences
            correct the grammar in {f}
            rewrite {f} in simpler words
            shorten {f} by half""",
        "other": """is {f} any good?
            what do you think of {f}?
            are there any typos in {f}?""",
    },
    "compare files": {
        "do": """diff {f} against last week's backup
            merge {f} with the copy on the server
            show me the differences between {f} and the version on the server
            highlight what is different between {f} and the original contract""",
        "other": """what changed in {f} since the last release?""",
    },
    "make links": {
        "do": """create a symlink to {f}
            make a shortcut to {d} on my desktop
            put an alias for {f} on the desktop
            hard link {f} into {d}""",
    },
    "manage the machine": {
        "do": """restart the computer
            turn off the wifi
            free up some memory
            update the system
            empty the recycle bin
            mount the usb drive
            kill the process that uses {f}
            shut the laptop down
            lock the screen
            log me out""",
        "other": """how much battery is left?
            how much disk space do I have?
            why is my computer so slow?""",
    },
    "handle pictures": {
        "do": """crop the picture in {d}
            take a screenshot
            scan the text out of the photo in {d}
            resize the photos in {d}
            remove the background from my portrait""",
        "other": """can the image in {d} be made brighter?
            who is in the photo in {d}?""",
    },
    "tell the time": {
        "do": """tell me which day of the week it is""",
        "other": """what time is it?
            what's the date today?
            how many days are left until Friday?
            what time is it in Tokyo right now?
            is today a public holiday?""",
    },
    "order things": {
        "do": """order a pizza
            buy two train tickets to Rome
            pay the bill in {f}
            get me a birthday present for Lena
            put milk and eggs in my shopping cart""",
        "other": """I'd like a taxi at eight
            where's my parcel?
            I'm out of coffee, can you buy more?""",
    },
    "read the news": {
        "do": """give me today's headlines
            catch me up on the election""",
        "other": """anything new in the world of sports?
            how are the stock markets doing?""",
    },
    "give directions": {
        "do": """navigate to the train station
            find the quickest way to the airport""",
        "other": """how far is it from Berlin to Prague?
            is there a pharmacy near me?""",
    },
    "draw charts": {
        "do": """draw a bar chart of the values in {f}
            turn the table in {f} into a graph
            make a pie chart for the budget""",
        "other": """could I see {f} as a diagram?""",
    },
    "query databases": {
        "do": """run an SQL query on the customer table
            import {f} into the database
            drop the table called orders""",
        "other": """how many rows are in the users table?""",
    },
    "edit videos": {
        "do": """trim the video in {d} to one minute
            add subtitles to the clip in {d}
            record my screen""",
        "other": """can the film in {d} be made shorter?""",
    },
    "back up online": {
        "do": """back {d} up to google drive
            put {f} on dropbox
            schedule a nightly cloud backup of {d}""",
        "other": """is {d} safely backed up online?""",
    },
    "install software": {
        "do": """install python
            upgrade my browser to the newest version
            uninstall the game I got last week""",
        "other": """are there any updates for this app?""",
    },
    "control devices": {
        "do": """dim the lights in the kitchen
            turn the volume down
            connect my headphones over bluetooth
            set the heating to 20 degrees""",
        "other": """is the front door locked?
            why is there no sound?""",
    },
    "stop programs": {
        "do": """close all the windows I have open
            force quit the editor
            end whatever is writing to {f}""",
        "other": """which program is using so much memory?""",
    },
    "manage passwords": {
        "do": """reset my password
            come up with a strong password for my bank account
            log in to my account""",
        "other": """what was my wifi password again?""",
    },
    "speak or listen": {
        "do": """read {f} aloud
            say hello in a deep voice
            transcribe the recording in {d}""",
        "other": """can I dictate {f} to you?""",
    },
    "scan for viruses": {
        "do": """check {f} for malware
            clean the virus off my laptop""",
        "other": """is {f} safe to open?""",
    },
    "post on social media": {
        "do": """tweet the first line of {f}
            publish {f} on my blog""",
        "other": """how many followers do I have?""",
    },
    "watch for changes": {
        "do": """let me know whenever {f} changes
            keep an eye on {d} overnight""",
        "other": """can I get an alert when something lands in {d}?""",
    },
    "manage contacts": {
        "do": """add Julia to my address book
            save Sam's new number on my phone""",
        "other": """when is my brother's birthday?""",
    },
    "book travel": {
        "do": """reserve a hotel room in Vienna
            check me in for my flight""",
        "other": """when does the next bus leave?""",
    },
    "sign documents": {
        "do": """sign {f} on my behalf
            stamp {f} with the company seal""",
        "other": """{f} needs my signature, can you add it?""",
    },
    "give advice": {
        "do": """tell me what to do about my headache
            help me choose a new laptop""",
        "other": """should I accept the job offer?""",
    },
}
